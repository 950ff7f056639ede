//! Every pair of phase and input, and a seeded walk that looks for machines that contradict themselves.

use std::time::Duration;

use super::*;

fn phases(later: Instant) -> Vec<Phase> {
    vec![
        Phase::Stopped,
        Phase::Asleep,
        Phase::Starting,
        Phase::Running { successor: false },
        Phase::Running { successor: true },
        Phase::Stopping(Then::Stopped),
        Phase::Stopping(Then::Asleep),
        Phase::Stopping(Then::Start),
        Phase::Stopping(Then::Disabled),
        Phase::Stopping(Then::Gone),
        Phase::Backoff { until: later },
        Phase::Failed,
        Phase::Denied,
        Phase::Disabled,
        Phase::Gone,
    ]
}

/// `state_table.txt`: phase, input, the phase that follows with its effects.
#[test]
fn every_pair_of_phase_and_input_has_its_answer() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let inputs = [
        Input::Installed { auto: true },
        Input::Changed,
        Input::Removed,
        Input::Start,
        Input::Stop,
        Input::Restart,
        Input::Disable,
        Input::Enable { auto: true },
        Input::Adopted,
        Input::Ready,
        Input::NotReady(After::Again(later)),
        Input::NotReady(After::GiveUp),
        Input::NotReady(After::Deny),
        Input::Ended(After::Again(later)),
        Input::Ended(After::Stay),
        Input::Ended(After::GiveUp),
        Input::Idle,
        Input::Parted,
        Input::Timer,
    ];
    let mut lines = String::new();
    for phase in phases(later) {
        let machine = Machine { phase, wanted: false };
        for input in inputs {
            let (next, effects) = step(machine, input, now);
            let effects: String = effects.iter().map(effect_name).collect();
            lines.push_str(&format!("{:<16} {:<22} {}{effects}\n", name(phase), input_name(input), name(next.phase)));
        }
    }
    let expected = include_str!("state_table.txt");
    assert_eq!(lines, expected, "the table of the life of a process changed:\n{lines}");
}

fn name(phase: Phase) -> String {
    match phase {
        Phase::Running { successor: true } => "running/s".into(),
        Phase::Running { successor: false } => "running".into(),
        Phase::Stopping(then) => format!("stopping>{then:?}").to_lowercase(),
        Phase::Backoff { .. } => "backoff".into(),
        phase => format!("{phase:?}").to_lowercase(),
    }
}

fn input_name(input: Input) -> String {
    match input {
        Input::NotReady(After::Again(_)) => "NotReady(Again)".into(),
        Input::Ended(After::Again(_)) => "Ended(Again)".into(),
        Input::Installed { .. } => "Installed".into(),
        Input::Enable { .. } => "Enable".into(),
        input => format!("{input:?}"),
    }
}

fn effect_name(effect: &Effect) -> String {
    match effect {
        Effect::Arm(_) => "+Arm".into(),
        effect => format!("+{effect:?}"),
    }
}

/// What the keeper would hold: the machine must never ask for what cannot be done, nor leave a process that nobody keeps.
#[derive(Default)]
struct World {
    starting: bool,
    serving: bool,
    parting: bool,
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
    for _ in 0..300 {
        let (mut machine, mut world) = (Machine::new(random(4) == 0), World::default());
        for _ in 0..500 {
            now += Duration::from_millis(random(2_000));
            let after = [After::Again(now + Duration::from_secs(1)), After::Stay, After::GiveUp][random(3) as usize];
            let auto = random(2) == 0;
            let input = match random(15) {
                0 => Input::Installed { auto },
                1 => Input::Changed,
                2 if random(30) == 0 => Input::Removed,
                3 => Input::Start,
                4 => Input::Stop,
                5 => Input::Restart,
                6 => Input::Disable,
                7 => Input::Enable { auto },
                8 | 9 if world.starting => Input::Ready,
                10 if world.starting => Input::NotReady(after),
                11 if world.serving && !world.parting => Input::Ended(after),
                12 if world.serving => Input::Idle,
                13 if world.parting => Input::Parted,
                _ => Input::Timer,
            };
            let arrived = input == Input::Ready;
            if matches!(input, Input::Ready | Input::NotReady(_)) {
                world.starting = false;
            }
            if input == Input::Parted {
                (world.parting, world.serving) = (false, false);
            }
            let (next, effects) = step(machine, input, now);
            for effect in &effects {
                match effect {
                    Effect::Launch => {
                        assert!(!std::mem::replace(&mut world.starting, true), "two at once: {machine:?} {input:?}");
                    }
                    Effect::Abandon => assert!(std::mem::take(&mut world.starting), "{machine:?} {input:?}"),
                    Effect::Offer => {
                        assert!(arrived, "{machine:?} {input:?}");
                        world.serving = true;
                    }
                    Effect::Withdraw => world.serving = false,
                    Effect::Part => {
                        assert!(world.serving && !std::mem::replace(&mut world.parting, true), "{machine:?} {input:?}");
                    }
                    Effect::Arm(at) => assert!(*at > now),
                }
            }
            machine = next;
            let phase = machine.phase;
            let starting = matches!(phase, Phase::Starting | Phase::Running { successor: true });
            assert_eq!(world.starting, starting, "{phase:?} {input:?}");
            let serving = matches!(phase, Phase::Running { .. } | Phase::Stopping(_));
            assert_eq!(world.serving, serving, "{phase:?} {input:?}");
            assert_eq!(world.parting, matches!(phase, Phase::Stopping(_)), "{phase:?} {input:?}");
            if matches!(phase, Phase::Starting | Phase::Backoff { .. }) {
                assert!(machine.wanted, "{phase:?} after {input:?} of a process that nobody wants");
            }
        }
    }
}
