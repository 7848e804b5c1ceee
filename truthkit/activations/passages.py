"""Short passages of several kinds, written for this package, for measures that need texts where none are given.

They are few, so intervals over them are wide; for figures to publish, take texts of your own domain.
"""

from __future__ import annotations

PASSAGES: tuple[str, ...] = (
    "The ferry left the harbour an hour late, and nobody on deck seemed to mind. Two children counted gulls, losing "
    "track somewhere after thirty, while their grandfather slept with a newspaper over his face. By the time the "
    "island came into view the wind had turned, and the captain, who had said nothing all morning, announced that "
    "lunch would be served on the return journey only, since the cook had stayed ashore with a toothache.",
    "Bread rises because yeast feeds on the sugars in flour and gives off carbon dioxide. The gas would escape at once "
    "if kneading had not lined up the proteins of the dough into long elastic strands, which hold it in thousands of "
    "small bubbles. In the oven the bubbles swell, the yeast dies, and the strands set. A loaf that was kneaded too "
    "little spreads out flat; one that rose too long collapses as soon as the heat reaches it.",
    "Members of the town council voted on Tuesday to keep the swimming pool open through the winter, reversing a "
    "decision taken in June. The cost of heating had been the main objection, but a heat pump paid for by the regional "
    "government is to be installed before November. Opponents pointed out that the roof still leaks. A spokesman for "
    "the swimming club called the result a relief and promised that its members would help with the painting.",
    "Before you replace the chain, shift to the smallest ring at the front and the smallest cog at the back, so that "
    "there is no tension. Push out one pin with a chain tool and let the old chain fall. Lay the new one beside it and "
    "count the links; new chains are nearly always too long. Thread it through both jockey wheels, making sure that it "
    "passes on the right side of the little tab between them, and close it with the joining link.",
    "A glacier is a river that takes its time. Snow that falls on the upper part is pressed into ice by the snow of "
    "later years, and the ice creeps downhill under its own weight, a few centimetres or a few metres in a day. Lower "
    "down it melts, and where melting and supply are in balance the tongue stays in place although the ice in it never "
    "does. Stones that it carried are dropped there and pile up into a wall called a moraine.",
    '"You cannot be serious," said Marta, putting the letter down beside the teapot. "He wants to sell the orchard?" '
    "Her brother shrugged. He had known since Easter, and had spent the whole summer looking for a way to tell her. "
    '"Not all of it. The part behind the wall." She laughed at that, though not kindly. The part behind the wall was '
    "where the good apples grew, and there was no one in the family who did not know it.",
    "In a market with many buyers and many sellers, no single one of them decides the price. If it is too high, goods "
    "are left on the shelves and some sellers lower it; if it is too low, buyers go home with empty hands and others "
    "offer more. Real markets often differ from this picture. A shop may be the only one in the village, a buyer may "
    "not know what the thing is worth, and a contract signed last year may fix the price whatever happens.",
    "The committee thanks all applicants for their patience. Of the ninety-four proposals that we received, eleven "
    "will be funded. Each was read by three reviewers, who did not know the names of the authors and who scored "
    "originality, feasibility and cost. Where the scores differed by more than two points a fourth reader was asked. "
    "Comments will be sent to everyone by the end of the month, and the next call opens in the second week of March.",
    "Octopuses have three hearts. Two of them pump blood through the gills, and the third sends it around the body. "
    "Their blood is blue, since the protein that carries the oxygen contains copper where ours contains iron. Most of "
    "their nerve cells sit in the arms, each of which can taste what it touches and can go on searching under stones "
    "while the animal looks elsewhere. They live alone, learn quickly, and hardly ever grow older than four.",
    "To start the program, open a terminal in the folder that holds the configuration file and type its name followed "
    "by the word serve. It listens on port 8080 unless told otherwise. Log messages go to standard error, one line for "
    "each request, with the time, the address and the number of bytes sent. Pressing Ctrl and C stops it after the "
    "requests that are still running have been answered; pressing the keys again stops it at once.",
    "When the second goal fell, the away supporters had already begun to leave. It came from a corner that should "
    "never have been given, was headed against the bar, and dropped to the one player on the field who had not scored "
    "all season. He closed his eyes, he said afterwards, and kicked. The referee looked at his watch, at the linesman, "
    "and at forty thousand people on their feet, and pointed to the centre circle.",
    "The printing of books from movable type spread through Europe within a few decades. A workshop in Mainz showed "
    "how to cast letters that could be used again and again, and by the end of the century there were presses in more "
    "than two hundred towns. Books became cheaper, and so did errors, which were now copied a thousand times before "
    "anybody noticed. Printers answered with a new invention, a list of corrections on the last page.",
    "My grandmother kept her recipes in a biscuit tin, on cards that were stained with the dishes they described. None "
    'of them said how long anything had to cook. "Until it is done," she wrote, or "until it smells right", and once, '
    'for a plum cake, "until your uncle comes home". I have made that cake every September for nine years, with an '
    "oven thermometer and a clock, and it has never tasted as it did when we waited for him.",
    "A triangle whose sides measure three, four and five units has a right angle, and builders have used ropes with "
    "twelve equal sections to lay one out on the ground. The reverse of the theorem is what they rely on: whenever the "
    "squares of the two shorter sides add up to the square of the longest, the angle between the shorter ones is "
    "right. There are infinitely many such triples of whole numbers, and a simple rule produces all of them.",
    "Dear Mr Okafor, I am writing about the room that you advertised in the library. I am a nurse at the children's "
    "hospital and often work at night, so that I would be asleep in the mornings and out in the evenings. I do not "
    "smoke, I have no pets, and I own a great many books. Would it be possible to see the room on Saturday after two? "
    "If another time suits you better, please leave a message with my sister, whose number is below.",
    "Trains on the coastal line run every twenty minutes from early morning until just before midnight. Tickets are "
    "sold at machines on the platform, which take cards but no notes, and must be stamped before boarding. The journey "
    "from the airport to the old town takes thirty-five minutes and crosses the river twice. Sit on the left for the "
    "view: after the second bridge the track runs along the beach, so close that in a storm the windows get wet.",
)
