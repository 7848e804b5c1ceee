"""Faults that were met in use, a row each, and the tests that hold what is right now.

A row that names a test which is gone fails here; what the tests say is theirs.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent

CASES: dict[str, tuple[str, str]] = {
    # Decoding
    "A1": (
        "guidance, or a processor that calls the model, inside a block",
        "decoding/test_blocks.py: test_another_text_within_generate_is_refused; decoding/test_bad_input.py: "
        "TestWhileDecoding::test_nan",
    ),
    "A2": (
        "threads, in and beside a block",
        "decoding/test_blocks.py: test_two_threads_never_share_a_block "
        "TestHelpers::test_streams_from_a_thread_that_it_starts TestHelpers::test_what_begins_after_the_block_is_plain "
        "TestHelpers::test_leaving_while_it_runs_is_an_error",
    ),
    "A3": (
        "longer views in models that padding changes",
        "decoding/test_architectures.py: "
        "TestRefused::test_views_with_longer_prompts_where_padding_is_not_neutral "
        "TestRefused::test_which_models_are_neutral_to_padding",
    ),
    "A4": (
        "pictures that a processor was given otherwise",
        "decoding/test_pictures_as_given.py: test_the_identity_view_is_the_main_one test_other_pictures_are_refused",
    ),
    "A5": (
        "a cache that keeps more than keys and values",
        "decoding/test_looked_at_when_used.py: test_a_cache_that_keeps_more_is_not_returned",
    ),
    "A6": (
        "weights that are elsewhere",
        "decoding/test_looked_at_when_used.py: test_an_adapter_on_an_offloaded_model; "
        "activations/test_device_map.py: test_weights_that_are_elsewhere_are_not_baked",
    ),
    "A7": (
        "an adapter that is merged behind the decoder's back",
        "decoding/test_looked_at_when_used.py: test_an_adapter_that_changed_since test_a_head_that_was_replaced_since",
    ),
    "A8": (
        "an amateur with padded vocabulary",
        "decoding/test_looked_at_when_used.py: test_an_amateur_with_a_padded_vocabulary",
    ),
    "A9": ("embeddings beside tokens", "decoding/test_looked_at_when_used.py: test_embeddings_beside_tokens"),
    "A10": (
        "images by cross-attention",
        "decoding/test_architectures.py: TestRefused::test_images_by_cross_attention",
    ),
    "A11": (
        "exits where the last steps go by other names",
        "hf/test_tails.py: test_exits_of_unusual_architectures test_exits_that_are_refused test_every_architecture; "
        "hf/test_sites.py: test_blocks_named_by_hand; activations/test_isotropy.py: "
        "test_final_whatever_the_last_norm_is_called",
    ),
    "A12": (
        "models without a length, copies in a block, an adapter per row, cropped caches",
        "decoding/test_looked_at_when_used.py: test_models_that_say_no_length_or_know_no_cache "
        "test_an_adapter_for_each_row test_a_cache_that_was_cropped_to_nothing; "
        "decoding/test_blocks.py: test_a_copy_inside_a_block_is_refused",
    ),
    "A13": (
        "blocks left in another order",
        "decoding/test_blocks.py: test_200_random_sequences_leave_the_model_as_it_was",
    ),
    # Steering, reading, training
    "B1": (
        "layers that tie",
        "steering/test_defaults.py: test_ties_go_to_the_middle_of_the_longest_stretch "
        "test_layers_to_try_are_spread_over_the_plateau",
    ),
    "B2": (
        "steering without layers",
        "steering/test_defaults.py: test_one_layer_is_steered_unless_more_are_asked_for",
    ),
    "B3": ("few pairs, all right", "steering/test_defaults.py: test_few_pairs_that_are_all_right_prove_little"),
    "B4": (
        "copies of a pair on both sides",
        "steering/test_held_out.py: test_copies_are_on_one_side_and_near_copies_are_told_of "
        "test_no_group_is_on_both_sides",
    ),
    "B5": ("the whole answer is read", "text/test_dialogue.py: test_the_whole_answer_is_read"),
    "B6": (
        "templates that refuse a system turn, answers that never stop",
        "text/test_dialogue.py: test_a_system_turn_goes_to_the_user_where_the_template_has_none "
        "test_what_is_learnt_follows_what_generation_sees_and_ends_it; text/test_template.py: test_bad_input "
        "test_all_readers_of_a_chat_give_the_model_the_same_tokens",
    ),
    "B7": (
        "a vector of some layers of an unknown model",
        "steering/test_defaults.py: test_a_control_vector_of_some_layers_fits_any_model_that_has_them",
    ),
    "B8": (
        "quantised vectors",
        "steering/test_defaults.py: test_quantised_control_vectors_are_read_as_numbers",
    ),
    "B9": (
        "steering where the cache has no length",
        "steering/test_steer.py: test_models_whose_cache_has_no_length",
    ),
    "B10": (
        "pairs with BOM, CRLF, in an array",
        "cli/test_people_files.py: test_pairs; files/test_reading.py: test_the_same_records_in_every_form",
    ),
    "B11": (
        "adapters with tokens or a template of their own",
        "models/test_adapter.py: test_added_tokens test_added_tokens_whose_rows_nobody_saved "
        "test_an_adapter_with_a_template",
    ),
    "B12": (
        "no chat template",
        "text/test_dialogue.py: test_without_a_template_all_commands_write_messages_alike",
    ),
    "B13": (
        "the same model by another name",
        "steering/test_defaults.py: test_a_model_is_told_by_its_weights_where_it_has_no_name_of_its_own; "
        "models/test_identities.py: test_copies_agree; steering/test_vector.py: test_a_vector_for_another_model",
    ),
    "B14": (
        "one token that begins a sequence",
        "text/test_dialogue.py: test_a_text_that_begins_with_the_first_token_gets_no_second_one; "
        "likelihood/test_continuation.py: test_one_token_begins_it_and_none_ends_it",
    ),
    "B15": (
        "options that were passed over",
        "steering/test_defaults.py: test_what_is_refused_on_the_command_line "
        "test_one_layer_is_steered_unless_more_are_asked_for; "
        "cli/test_people_files.py: test_isotropys_texts",
    ),
    # Scoring
    "C1": (
        "fields that compete",
        "cli/test_people_files.py: test_the_prediction_is_scored_or_asked_for "
        "test_every_reader_asks_which_of_two_fields; files/test_reading.py: test_fields_that_compete",
    ),
    "C2": (
        "a choice without a token of its own",
        "likelihood/test_continuation.py: test_cut_where_the_references_cut_or_refused test_no_score_for_nothing",
    ),
    "C3": (
        "ties are no wins",
        "evaluation/tasks/test_truthfulqa.py: test_ties_and_excluded_choices_are_no_wins; evaluation/tasks/"
        "test_factor.py: test_excluded_completions_are_never_right; cli/test_eval_results.py: "
        "test_excluded_choices_are_counted_and_no_wins",
    ),
    "C4": ("a caption twice", "cli/test_people_files.py: test_captions_of_one_image"),
    "C5": (
        "claims and answers in other forms",
        "cli/test_people_files.py: test_claims test_merged_answers_whose_ids_repeat; files/test_reading.py: "
        "test_the_same_records_in_every_form test_sheets",
    ),
    "C6": ("blanks behind fields", "cli/test_people_files.py: test_blanks_behind_mmes_fields"),
    "C7": (
        "inputs and judgements of other data",
        "cli/test_people_files.py: test_amateur_data",
    ),
    "C8": (
        "each method's own controls",
        "decoding/test_controls.py: test_of_one test_of_a_sum; decoding/test_spec.py: test_controls",
    ),
    "C9": (
        "what a run is called, and what no view did",
        "generation/test_explain.py: test_what_is_no_views_own_is_interaction; evaluation/running/test_runs.py: "
        "test_pope_on_photographs",
    ),
    # Bad input, faults, load
    "D1": (
        "any damage in any file",
        "files/test_fuzz.py: test_changed_files test_whole_files_with_odd_content; cli/test_people_files.py: "
        "test_nested_and_endless_files_end_every_command_in_one_line",
    ),
    "D2": (
        "layers, positions and strengths that are none",
        "steering/test_damaged_vectors.py: test_texts_that_name_no_layer_position_or_strength",
    ),
    "D3": ("a write in parts", "files/test_full_disk.py: test_a_write_in_parts_is_whole"),
    "D4": (
        "a full disk",
        "files/test_full_disk.py: test_every_save_on_a_full_disk; evaluation/running/test_records.py: "
        "test_a_full_disk_loses_nothing; files/test_writing.py: test_a_file_is_the_old_or_the_new_one",
    ),
    "D5": (
        "two processes on one folder",
        "files/test_lock.py: test_a_second_writer_is_refused_until_the_first_is_dead; evaluation/running/"
        "test_interrupted.py: test_terminated_locked_and_on_a_full_disk; evaluation/running/test_processes.py: "
        "test_killed_in_the_middle; evaluation/running/test_records.py: "
        "test_who_is_waited_for_is_named",
    ),
    "D6": (
        "images that are no files, or far too large",
        "images/test_reading.py: test_only_regular_files_are_read test_a_small_file_of_many_pixels_costs_no_memory "
        "test_pillows_own_limit_is_kept",
    ),
    "D7": (
        "a server under load and against rude clients",
        "app/test_load.py: test_under_load; serving/test_connections.py: test_slow_connections_make_room "
        "test_who_does_not_read_is_dropped; serving/test_requests.py: test_what_cannot_be_right_is_refused_in_a_line; "
        "app/test_server.py: test_a_prompt_of_sixty_megabytes_is_refused test_who_does_not_read_loses_the_model",
    ),
    "D8": (
        "mistakes are told at once",
        "cli/test_parser.py: test_mistakes_are_found_before_torch_is_imported "
        "test_a_mistake_or_a_question_costs_little",
    ),
    "D9": (
        "a run that is terminated",
        "evaluation/running/test_interrupted.py: test_terminated_locked_and_on_a_full_disk; cli/test_train.py: "
        "test_stopped_in_the_middle",
    ),
    # The hub
    "E1": (
        "the commit is recorded",
        "models/test_hub.py: test_the_commit_is_known test_vectors_and_trainings_know_the_commit test_revision; "
        "evaluation/running/test_contents.py: test_main_moves_on_the_hub",
    ),
    "E2": (
        "another amateur in the same folder",
        "evaluation/running/test_contents.py: test_another_amateur test_the_same_again_goes_on",
    ),
    "E3": (
        "a hub that is silent",
        "models/test_hub.py: test_a_hub_that_does_not_answer_leaves_the_cache test_patience_is_five_seconds "
        "test_a_hub_that_does_not_answer_and_nothing_in_the_cache; evaluation/running/test_hub_road.py: "
        "test_a_hub_that_does_not_answer",
    ),
    "E4": ("main moves meanwhile", "models/test_hub.py: test_main_moves_while_it_is_loaded"),
    "E5": (
        "cut connections, pickles, damaged folders",
        "models/test_hub.py: test_a_connection_that_is_cut test_a_pickle_that_runs_code "
        "test_a_generation_config_that_cannot_be_read_is_said; models/test_adapter.py: test_mutated_adapter_folders "
        "test_junk_as_an_amateurs_weights",
    ),
    "E6": (
        "repositories that are not for everyone, or hold something else",
        "models/test_hub.py: test_repositories_that_are_not_for_everyone test_quantised_files_only test_no_tokenizer "
        "test_a_model_without_a_head_that_writes test_things_that_are_no_model_or_no_adapter; "
        "evaluation/running/test_hub_road.py: test_data_that_is_not_for_everyone",
    ),
    "E7": (
        "the damaged file is named",
        "models/test_hub.py: test_a_damaged_file_is_named_and_once_deleted_it_works; evaluation/running/"
        "test_hub_road.py: test_a_damaged_file_is_named_and_once_deleted_it_works",
    ),
    "E8": ("one repository for two tasks", "evaluation/running/test_hub_road.py: test_one_repository_for_two_tasks"),
    "E9": (
        "a changed byte with its old time",
        "models/test_store.py: test_a_changed_byte_with_the_old_time_and_size test_verify_on_the_command_line",
    ),
    # Results that mislead
    "F1": (
        "the same path, made anew",
        "evaluation/running/test_contents.py: test_another_model_as_the_amateur test_adapter_and_weights_made_anew "
        "test_a_vector_made_anew",
    ),
    "F2": (
        "each metric's unit and direction",
        "evaluation/report/test_units.py: test_factcheck test_open_ended test_every_metric_of_a_run_is_declared "
        "test_the_terminal_says_units_too",
    ),
    "F3": (
        "results are no settings, the baseline is the unmodified model",
        "evaluation/report/test_gathering.py: test_a_result_is_no_setting test_the_baseline_is_the_unmodified_model",
    ),
    "F4": (
        "a limit is a draw, an absent class has no F1",
        "evaluation/tasks/test_tasks.py: test_mme_takes_whole_images; evaluation/tasks/test_factcheck.py: "
        "test_one_class_only",
    ),
    "F5": (
        "what select says and spares",
        "steering/test_select.py: test_what_makes_the_positive_sides_less_likely_is_not_chosen; "
        "cli/test_steering_commands.py: test_select",
    ),
    "F6": ("a run's folder is scored again", "cli/test_score.py: test_a_run_is_scored_again"),
    "F7": ("held-out tables", "cli/test_people_files.py: test_held_out_tables"),
    "F8": (
        "the constraint under multiple choice, one image alone",
        "cli/test_eval_results.py: test_excluded_choices_are_counted_and_no_wins; statistics/test_intervals.py: "
        "test_one_cluster_has_no_interval",
    ),
    "F9": ("ten questions choose nothing", "recipes/test_lol.py: test_the_whole_of_it_and_again"),
    "F10": (
        "units are recorded, in files too",
        "evaluation/report/test_units.py: test_files_say_what_numbers_are_of; training/test_simctg.py: "
        "test_first_loss; cli/test_train.py: TestReport::test_amateur; factcheck/test_gains.py: "
        "test_choosing",
    ),
    "F11": (
        "raw scores beside normalised ones",
        "cli/test_eval_results.py: test_raw_scores_stand_beside_normalised_ones; likelihood/"
        "test_log_probabilities.py: test_raw_scores_are_the_sums_of_the_formula",
    ),
    "F12": (
        "training in little memory, a quick recipe that is quick",
        "training/test_lora.py: TestLoss::test_pieces_do_not_change_it; recipes/test_reflex.py: "
        "test_the_whole_of_it_and_again",
    ),
}
"""By row: what happened, in a few words; and files with their tests."""

LETTERS = {"A": 13, "B": 15, "C": 9, "D": 9, "E": 9, "F": 12}


@cache
def known_in(file: str) -> set[str]:
    """The tests of a file, without importing it."""
    found = set()
    for node in ast.parse((TESTS / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_row_is_held_by_tests() -> None:
    assert list(CASES) == [f"{letter}{n}" for letter, count in LETTERS.items() for n in range(1, count + 1)]
    for row, (what, held_by) in CASES.items():
        assert what
        for part in held_by.split(";"):
            file, _, names = part.partition(":")
            assert names.split(), row
            missing = {*names.split()} - known_in(file.strip())
            assert not missing, f"{row}: {file.strip()} has no {sorted(missing)}"
            assert all(name.rpartition("::")[2].startswith("test_") for name in names.split()), row
