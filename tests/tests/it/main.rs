//! Behaviour tests through the public faces: libraries, daemon, command line, and the wire by hand.
//!
//! What the main job must show, and the tests that show it:
//!
//! | promise | tests |
//! |---|---|
//! | a v0 plugin loads, 10,000 calls while a callback waits, notifications, death while a callback waits, unload | `v0::a_v0_plugin_does_everything_while_a_callback_waits` |
//! | a v0 application drives our plugin on one connection | `v0::a_v0_application_drives_our_plugin_on_one_connection` |
//! | the original's documented `.pconf` loads; `ab`+`c` and `a`+`bc` are two | `v0::the_documented_pconf_loads_trailing_comma_included`, `discovery::pairs_that_the_original_joined_are_two_plugins` |
//! | load, unload, load, reload: one pid; a killed registry adopts, the activator having run once; a successor is reachable throughout | `life::load_unload_load_reload_keep_the_process`, `life::a_killed_registry_adopts_what_runs`, `life::a_successor_is_reachable_throughout` |
//! | publish to callable, 1,000 at once | `figures::publish_to_callable`, `figures::a_thousand_plugins_at_once` |
//! | 20,000 junk files while stopped | `discovery::an_overflow_is_reported_and_mended` |
//! | 2,000 random file operations end with what an oracle says | `discovery::random_file_operations_end_as_the_oracle_says` |
//! | 1,000,000 calls in bad weather, everything given back | `calls::a_reply_never_reaches_another_call_in_bad_weather`, `leaks::all_is_given_back` |
//! | 100,000 notifications across cuts, and across kills of the registry | `notifications::across_cut_connections_each_is_handled_exactly_once`, `notifications::across_kills_of_the_registry_at_least_once_in_order` |
//! | 10,000 malformed inputs, a healthy call after each 100 | `hostile::malformed_*` |
//! | a 100 MB reply, a declared 4 GB | `hostile::a_reply_beyond_the_limit_costs_no_more_than_the_limit`, `hostile::a_declared_length_costs_nothing` |
//! | a dead entry, a FIFO, a device, a symlink, another owner, 65 KiB: refused with the reason | `identity::*` |
//! | a program and its digest are told of what runs; a pinned plugin runs no other | `trust::*` |
//! | every verb on both targets gives the same answer | `cli::every_verb_gives_the_same_answer_on_both_targets` |
//! | a started plugin outlives the registry, is adopted by proof only, and ends with everything that it started | `hosts::*` |
//! | 1,000 SIGKILLs of plugins: nothing wrong, hung, or acknowledged and not heard | `supervision::kills::*` |
//! | 100 SIGKILLs of the daemon with 20 plugins; whoever got their numbers; a daemon that stands still for 30 s | `daemon::outlived::*` |
//! | 50 hot upgrades at 2,000 calls a second | `supervision::upgrades::no_call_fails_while_new_versions_take_over` |
//! | 500 injected errors of system calls; killed at every one | `injected::*`, `killed::*` |
//! | a full disk, and one that fails, at every write of an installation, an upgrade, a removal | `disk::*` |
//! | of 341 evil archives no byte outside the staging folder | `evil_packages::*` |
//! | two registries of one directory | `supervision::leases::*` |
//! | the same over HTTP as over frames | `transports::everything_holds_over_http_too` |
//! | a body is read where it was written; a thousand need few segments; a killed side leaves none | `segments::*` |
//! | a plugin found by type; a mismatch method by method; typed errors and notifications; in process as over the wire | `interfaces::*` |
//! | streams of an interface, both ways, over frames and HTTP; one that was cut off is an error | `typed_streams::*` |
//! | a package is verified before anything of it is written, runs nothing, installs, upgrades and rolls back | `packages::*`, and `evil::*`, `mutated::*` of the package `goplug-package` |
//! | a shared object in Rust, C and Go: each label, a deadline, a cancel, a crash that nobody else notices, memory back | `shared_objects::*` |
//! | plugins from an address or a repository install, run, upgrade, roll back; what is wrong with one leaves nothing | `sources::*` |
//! | 0 programs run of a package that are not what was installed, of 2,000 starts while somebody swaps them | `packages::verified::*` |
//! | compile errors of interfaces are readable | `compile_errors::*` |
//! | the demo | `demo::*` |
//! | every example runs | `examples::*` |
//!
//! Long runs are small here and full-sized with `cargo xtask deep`; each prints its seed. In a short run a time bound is a
//! guard against hangs at 20 times the figure, and the measured value is printed.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bodies;
mod calls;
mod changes;
mod cli;
mod compile_errors;
mod daemon;
mod demo;
mod discovery;
mod disk;
mod evil_packages;
mod examples;
mod figures;
mod hostile;
mod hosts;
mod identity;
mod injected;
mod interfaces;
mod killed;
mod leaks;
mod life;
mod manifests;
mod notifications;
mod open_files;
mod packages;
mod segments;
mod shared_objects;
mod sources;
mod supervision;
mod support;
mod szlabs;
mod transports;
mod trust;
mod typed_streams;
mod v0;
