"""Which attack is tried where? One line for each number of the list, and for those added since.

What is a row of a table (tables.py) is found by its number; tests of their own, here or elsewhere, are named
below. A test asserts that every number has at least one of both, and that what is named exists.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """One attack: `act` in a few words, the tests beside the tables' rows, and what must be known of it."""

    number: int
    group: str
    act: str
    tests: tuple[str, ...]
    note: str


LAST = 95
"""Of the list; what comes behind it was added."""

_ACTS = """
[resources]
1 fork bomb
2 thread bomb
3 memory bomb in small steps
4 one huge allocation
5 C that ignores NULL
6 endless Python loop
7 C loop that holds the GIL
8 pattern, number, zip and MIME bombs
9 sleep for ever
10 stop itself
11 hoard descriptors
12 fill the disk
13 flood the output
14 overflow the C stack
15 lock memory, huge pages
16 timers and signals
17 zombies
18 many slow sessions at once
[killing and leaving]
19 kill everybody
20 signal by other calls
21 ptrace
22 read and write a worker's memory
23 /proc of others
24 limits and priority of others
25 leave as a daemon
26 outlive the session
27 ignore every signal
28 undo what the zygote set
29 lose the leash
30 close the channel and linger
31 end the main thread only
32 int 0x80
33 x32 numbers, the vsyscall page
34 a number nobody knows
35 another filter, another ruleset
36 the upper half of arguments
37 change an argument while it is looked at
38 new code
39 the kernel's odd corners
40 the kernel itself
41 mounts and namespaces
42 identity, setuid programs
43 words into a terminal
44 memory shared with siblings
[files]
45 secrets and other people's files
46 change anything
47 open again through /proc
48 inherited descriptors
49 a folder held open
50 change the sealed message
51 working folder, core files
52 links and rights of the plugin's own files
53 the plugin's file changes while it runs
[network]
54 TCP
55 UDP
56 raw, packet, netlink, vsock, AF_ALG
57 path unix sockets
58 abstract unix sockets
59 names through libc
60 pipes and pairs
61 descriptors upward
[call protocol]
62 garbage
63 a record too long
64 empty records
65 frames without end
66 an answer in two records
67 an answer byte by byte
68 answers to other calls
69 answers of a wrong shape
70 codes and rewrites it may not say
71 not reading
72 capability calls without end
73 log injection, keys of other plugins
74 speak for another session
[crashes]
75 every deadly signal
76 leave without an answer
77 every kind of exception
78 finalisers that hang
79 replace what the sandbox uses
80 interpreter switches
[between sessions and the zygote]
81 what one session stores
82 shared memory made at import
83 pipes, pairs, events, threads at import
84 poison the zygote at import
85 crash, hang, hoard, loop at import
86 the zygote dies
87 a zygote that grows
88 siblings
89 timing, cache and memory pressure
90 the same random numbers in every fork
91 slow refills
92 two plugins with one uid
[programs, libraries, honesty]
93 hostile programs
94 hostile libraries
95 each wall left out is seen
[added]
96 a client that holds many sandboxes idle
97 a client that crashes a scanner again and again
98 a zygote that skips the sandboxes' filter
99 a zygote that keeps dead sandboxes alive
100 a zygote that forges reports
101 a recipient, an accept, a discard without the power
102 a leash armed after its worker died
103 message and recipients without the grant
104 a role of ours that was taken over
105 one run of a program reaches another's mail or password
106 mail that is executed
107 a program with a folder to write: out of it, or more than files
"""

_TESTS = """
1 escapes/test_programs.py::test_a_fork_bomb_ends_with_its_deadline
2 sandbox/test_threads.py::test_a_thread_bomb_stops
3 sandbox/test_crowd.py::test_when_memory_runs_out_sandboxes_go_first
6 sandbox/test_crowd.py::test_in_a_crowd_who_uses_much_comes_last
13 sandbox/test_host.py::test_output_is_kept_bounded_and_attributed
18 sandbox/test_host.py::test_more_than_allowed_is_overload_not_failure
18 sandbox/test_sharing.py::test_waiting_ends_in_overload
18 sandbox/test_sharing.py::test_a_network_cannot_hold_more_than_its_share
26 sandbox/test_host.py::test_a_worker_that_is_killed_takes_its_sandboxes_along
29 escapes/test_programs.py::test_a_program_cannot_slip_its_leash
32 sandbox/test_policy.py::test_another_architecture_and_x32_are_killed
34 sandbox/test_policy.py::test_what_the_table_does_not_know_is_enosys
36 sandbox/test_policy.py::test_int_arguments_are_compared_on_their_low_half
37 escapes/test_catalogue.py::test_no_filter_for_mail_asks_a_supervisor
48 sandbox/test_host.py::test_nothing_of_the_worker_is_open_in_a_sandbox
50 escapes/test_files.py::test_the_sealed_message_cannot_be_changed
52 master/test_plugin_files.py::test_what_everybody_may_write_is_refused_with_what_to_do
52 master/test_plugin_files.py::test_what_the_plugins_own_uid_owns_is_refused
52 master/test_plugin_files.py::test_a_link_out_of_the_folder_is_refused
52 system/test_plugins_isolated.py::test_files_that_others_can_write_do_not_start
53 system/test_plugins_isolated.py::test_changed_files_are_not_loaded_before_a_restart
61 escapes/test_zygotes.py::test_a_zygote_that_passes_descriptors_down
67 sandbox/test_host.py::test_the_deadline_is_for_the_whole_call
68 escapes/test_protocol.py::test_a_second_answer_is_never_taken_for_the_next_call
68 escapes/test_sharing.py::test_a_released_sandbox_that_talks_is_thrown_away
69 hooks/test_checks.py::test_reply_of_a_verdict
69 hooks/test_checks.py::test_header_that_could_break_the_message
70 hooks/test_checks.py::test_reply_of_a_verdict
70 hooks/test_checks.py::test_every_act_has_its_hooks
71 escapes/test_protocol.py::test_a_sandbox_that_does_not_read_waits_alone
72 broker/test_channel.py::test_quotas_of_a_session
72 broker/test_channel.py::test_the_rate_of_a_plugin_is_over_all_its_sessions
72 broker/test_channel.py::test_a_hundred_thousand_requests_end_in_a_closed_channel
72 broker/test_state.py::test_a_full_namespace_takes_no_new_key_until_some_expire
72 sandbox/test_broker_channel.py::test_a_hostile_plugin_hurts_its_own_channel_alone
73 sandbox/test_judging.py::test_output_is_escaped_line_by_line
73 sandbox/test_judging.py::test_output_has_a_rate
73 broker/test_state.py::test_namespaces_do_not_meet
74 escapes/test_protocol.py::test_another_process_cannot_speak_for_a_session
74 broker/test_channel.py::test_who_asks_is_known_by_the_channel
81 escapes/test_sessions.py::test_what_one_session_stores_the_next_does_not_see
81 escapes/test_sharing.py::test_a_used_sandbox_tells_nothing_of_the_session_before
84 escapes/test_sessions.py::test_children_forked_at_import_are_seen
84 escapes/test_zygotes.py::test_a_zygote_that_never_forks
84 master/test_hostile_zygote.py::test_a_helper_forked_by_a_call_is_found_too
84 master/test_hostile_zygote_words.py::test_a_flood_on_the_control_socket_ends_the_zygote
84 sandbox/test_zygote.py::test_control_messages_are_hostile_input
85 master/test_zygotes.py::test_a_plugin_that_hangs_stops_the_start
85 master/test_supervisor.py::test_a_process_that_dies_again_and_again_is_no_hot_loop
86 escapes/test_sessions.py::test_when_their_zygote_dies
86 sandbox/test_host.py::test_a_new_zygote_takes_over_the_waiting
86 master/test_zygotes.py::test_a_killed_zygote_comes_back_on_the_same_socket
87 escapes/test_zygotes.py::test_a_zygote_that_grows_with_each_fork
88 escapes/test_sessions.py::test_a_sibling_cannot_be_touched
88 escapes/test_neighbours.py::test_nor_does_one_sandbox
90 escapes/test_sessions.py::test_no_two_forks_draw_the_same
91 escapes/test_zygotes.py::test_a_zygote_that_is_busy_at_each_fork
92 master/test_uids.py::test_two_with_one_uid_are_refused_by_name
92 config/test_capabilities.py::test_a_uid_is_one_plugins
93 escapes/test_programs.py::test_a_hostile_program_gets_nowhere
93 escapes/test_programs.py::test_an_exploit_kills_the_program
93 escapes/test_programs.py::test_processor_time_is_bounded_behind_the_exec
93 escapes/test_programs.py::test_a_flood_on_standard_error_is_bounded
93 sandbox/test_programs.py::test_what_a_program_starts_with
93 sandbox/test_programs.py::test_what_a_program_left_behind_ends_with_it
93 programs/test_runs.py::test_a_gigabyte_of_output_is_cut_off_at_the_limit
93 programs/test_runs.py::test_what_it_leaves_behind_is_killed_and_not_waited_for
93 programs/test_runs.py::test_it_starts_nothing_that_was_not_granted
93 programs/test_runs.py::test_the_deadline_kills_it
93 programs/test_runs.py::test_processor_time_is_bounded
95 escapes/test_mutations.py::test_each_wall_is_missed
95 escapes/test_mutations.py::test_an_attack_goes_otherwise_without_what_stops_it
95 escapes/test_mutations.py::test_a_wall_without_a_switch_is_missed_too
95 sandbox/test_selftest.py::test_a_missing_wall_is_seen
96 escapes/test_sharing.py::test_one_client_that_holds_all_it_can_starves_nobody
96 escapes/test_sharing.py::test_many_clients_that_hold_all_there_is_give_way
97 escapes/test_sharing.py::test_a_client_that_crashes_a_scanner_again_and_again
98 escapes/test_zygotes.py::test_a_zygote_that_skips_the_sandboxes_filter
99 escapes/test_zygotes.py::test_a_zygote_that_keeps_dead_sandboxes_alive
99 master/test_hostile_zygote.py::test_a_zygote_that_keeps_dead_sandboxes_alive_is_ended
99 sandbox/test_host.py::test_a_sandbox_that_outlives_its_leash_is_blamed_on_its_zygote
100 escapes/test_zygotes.py::test_a_zygote_that_forges_reports
101 hooks/test_checks.py::test_every_act_needs_its_power_and_no_other
102 escapes/test_zygotes.py::test_a_leash_that_is_armed_after_its_worker_died
103 system/test_grants.py::test_mail_that_was_not_granted_does_not_reach_the_plugin
103 hooks/test_frames.py::test_envelope_goes_once_and_only_to_those_who_may_read_it
103 worker/test_copies.py::test_a_plugin_without_the_body_gets_the_header_alone
104 master/test_role_walls.py::test_what_a_role_that_was_taken_over_would_try
105 escapes/test_neighbours.py::test_one_run_of_a_program_does_not_reach_another
106 escapes/test_neighbours.py::test_mail_is_not_executed
107 sandbox/test_writing.py::test_what_may_be_done_in_the_folder_and_nowhere_else
107 sandbox/test_writing.py::test_without_the_grant_nothing_is_written
107 deliver/test_pipe.py::test_a_folder_that_is_granted_can_be_written_and_no_other
107 config/test_pipes.py::test_a_program_is_not_its_own_to_change
"""

_NOTES = {
    89: "not defended: forkd/sandbox/THREATS.md says so",
    94: "as far as a C library loaded by a Python plugin shows it: IndiMail's tables, arities and strings "
    "come with the host that loads such libraries",
}


def _read() -> tuple[Entry, ...]:
    tests: dict[int, tuple[str, ...]] = {}
    for line in _TESTS.split("\n")[1:-1]:
        number, test = line.split()
        tests[int(number)] = (*tests.get(int(number), ()), f"tests/{test}")
    entries = []
    group = ""
    for line in _ACTS.split("\n")[1:-1]:
        if line.startswith("["):
            group = line.strip("[]")
            continue
        word, _, act = line.partition(" ")
        number = int(word)
        entries.append(Entry(number, group, act, tests.get(number, ()), _NOTES.get(number, "")))
    return tuple(entries)


CATALOGUE = _read()
