//! Every pair of phase and input, and a seeded walk that looks for machines that contradict themselves.

use std::time::Duration;

use super::*;

fn phases(now: Instant) -> Vec<Phase> {
    let later = now + Duration::from_secs(1);
    vec![
        Phase::Discovered,
        Phase::Starting,
        Phase::Loaded(Successor::None),
        Phase::Loaded(Successor::Starting),
        Phase::Loaded(Successor::Waiting { until: later }),
        Phase::Draining { file_gone: false, reload: false },
        Phase::Draining { file_gone: false, reload: true },
        Phase::Draining { file_gone: true, reload: false },
        Phase::Stopped,
        Phase::Backoff { until: later },
        Phase::Failed,
        Phase::Denied,
        Phase::Down(Down::Backoff),
        Phase::Gone,
    ]
}

/// `state_table.txt`: phase, input, the phase that follows with its effects.
#[test]
fn every_pair_of_phase_and_input_has_its_answer() {
    let now = Instant::now();
    let inputs = [
        Input::Found { auto: true },
        Input::Replaced { auto: true },
        Input::Removed,
        Input::Load,
        Input::Unload,
        Input::Reload,
        Input::Up,
        Input::Adopted,
        Input::NotUp(Verdict::Retry),
        Input::Lost,
        Input::Inactive,
        Input::Drained { stopped: false },
        Input::Down(Down::Stopped),
        Input::Timer,
    ];
    let mut lines = String::new();
    for phase in phases(now) {
        let machine = Machine { phase, wanted: false, failures: 0 };
        let cells = inputs.map(|input| {
            let (next, effects) = step(machine, input, now, 0);
            let effects = effects.iter().map(|effect| match effect {
                Effect::Arm(_) => "+Arm".to_owned(),
                effect => format!("+{effect:?}"),
            });
            format!("{}{}", name(next.phase), effects.collect::<String>())
        });
        for (input, cell) in inputs.iter().zip(cells) {
            lines.push_str(&format!("{:<8} {:<28} {cell}\n", name(phase), format!("{input:?}")));
        }
    }
    let expected = include_str!("state_table.txt");
    assert_eq!(lines, expected, "the table of the life of a plugin changed:\n{lines}");
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Discovered => "disc",
        Phase::Starting => "start",
        Phase::Loaded(Successor::None) => "load",
        Phase::Loaded(Successor::Starting) => "load/s",
        Phase::Loaded(Successor::Waiting { .. }) => "load/w",
        Phase::Draining { file_gone: true, .. } => "drain/g",
        Phase::Draining { reload: true, .. } => "drain/r",
        Phase::Draining { .. } => "drain",
        Phase::Stopped => "stop",
        Phase::Backoff { .. } => "back",
        Phase::Failed => "fail",
        Phase::Denied => "deny",
        Phase::Down(_) => "down",
        Phase::Gone => "gone",
    }
}

/// What the supervisor's task would hold: the machine must never ask for what cannot be done.
#[derive(Default)]
struct World {
    starting: bool,
    serving: bool,
    draining: bool,
}

#[test]
fn a_long_random_life_never_contradicts_itself() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let mut now = Instant::now();
    for _ in 0..200 {
        let (mut machine, mut world) = (Machine::new(), World::default());
        for _ in 0..500 {
            now += Duration::from_millis(random(5_000));
            let auto = random(2) == 0;
            let input = match random(13) {
                0 => Input::Found { auto },
                1 => Input::Replaced { auto },
                2 if random(20) == 0 => Input::Removed,
                3 => Input::Load,
                4 => Input::Unload,
                5 => Input::Reload,
                6 | 7 if world.starting => Input::Up,
                8 if world.starting => {
                    Input::NotUp([Verdict::Retry, Verdict::Refused, Verdict::Denied][random(3) as usize])
                }
                9 if world.serving && !world.draining => Input::Lost,
                10 if world.draining => Input::Drained { stopped: auto },
                11 => Input::Down([Down::Stopped, Down::Backoff, Down::Failed][random(3) as usize]),
                _ => Input::Timer,
            };
            if matches!(input, Input::Up | Input::NotUp(_)) {
                world.starting = false;
            }
            // Of a process that is not there nobody waits for a drain.
            if matches!(input, Input::Drained { .. } | Input::Down(_)) {
                world.draining = false;
            }
            let (next, effects) = step(machine, input, now, random(1001) as u32);
            for effect in &effects {
                match effect {
                    Effect::Start => world.starting = true,
                    Effect::AbandonStart => assert!(std::mem::take(&mut world.starting), "{machine:?} {input:?}"),
                    Effect::Serve => world.serving = true,
                    Effect::Drop => assert!(std::mem::take(&mut world.serving), "{machine:?} {input:?}"),
                    Effect::Drain => world.draining = true,
                    Effect::Arm(at) => assert!(*at > now && *at <= now + Duration::from_secs(30)),
                }
            }
            machine = next;
            let phase = machine.phase;
            assert_eq!(
                world.starting,
                matches!(phase, Phase::Starting | Phase::Loaded(Successor::Starting)),
                "{phase:?} {input:?}"
            );
            assert_eq!(
                world.serving,
                matches!(phase, Phase::Loaded(_) | Phase::Draining { .. }),
                "{phase:?} {input:?}"
            );
            assert_eq!(world.draining, matches!(phase, Phase::Draining { .. }), "{phase:?} {input:?}");
            if matches!(phase, Phase::Backoff { .. } | Phase::Starting | Phase::Failed | Phase::Denied) {
                assert!(machine.wanted, "{phase:?} after {input:?} of a plugin that nobody wants");
            }
        }
    }
}
