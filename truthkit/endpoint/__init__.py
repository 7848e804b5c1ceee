"""OpenAI's completions API before one model: any decoder and any steering strength, each request its own.

A request becomes rows (`request`), rows stand in `truthkit.serving.line`, and those of one kind are answered in one
`generate` (`engine`, `steps`), each until its own end (`row`). What it says goes back as OpenAI's JSON (`replies`).
"""
