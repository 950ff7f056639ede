use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn the_word() {
    let word = |closed: bool, waiting: u64, taken: u64| Word(u64::from(closed) << 63 | waiting << 32 | taken);
    let cases = [
        (word(false, 0, 0), Ok(word(false, 0, 1)), None),
        (word(false, 0, 1), Ok(word(false, 0, 2)), Some(word(false, 0, 0))),
        (word(false, 0, 2), Err(NoPlace::Full), Some(word(false, 0, 1))),
        (word(false, 1, 2), Err(NoPlace::Full), None),
        // Whoever waits comes first, also while a place is on its way.
        (word(false, 1, 1), Err(NoPlace::Full), None),
        (word(true, 0, 1), Err(NoPlace::Closed), Some(word(true, 0, 0))),
        (word(true, 1, 2), Err(NoPlace::Closed), None),
    ];
    for (before, enters, leaves) in cases {
        assert_eq!(before.enter(2), enters, "{before:?}");
        if before.taken() > 0 {
            assert_eq!(before.leave(), leaves, "{before:?}");
        }
        assert_eq!(before.wait().waits_no_more(), before);
        assert!(before.wait().has_waiting());
        assert_eq!((before.wait().taken(), before.wait().is_closed()), (before.taken(), before.is_closed()));
    }
    assert!(!word(true, 0, u64::from(u32::MAX)).has_waiting());
}

/// What one of the callers is about.
enum Stage<'a> {
    /// It found no place, and has not queued yet.
    Outside,
    Refused,
    Waits(Queued<'a>),
    Inside(#[expect(dead_code, reason = "held, and dropped")] Taken<'a>),
}

/// Each step that another thread may come between: 0 tries or queues, 1 leaves, or gives up where it waits.
fn step<'a>(places: &'a Places, stage: Option<Stage<'a>>, step: usize) -> Option<Option<Stage<'a>>> {
    match (stage, step) {
        (None, 0) => Some(match places.try_take() {
            Ok(taken) => Some(Stage::Inside(taken)),
            Err(NoPlace::Full) => Some(Stage::Outside),
            Err(NoPlace::Closed) => Some(Stage::Refused),
        }),
        (Some(Stage::Outside), 0) => Some(match places.enqueue() {
            Ok(Ok(taken)) => Some(Stage::Inside(taken)),
            Ok(Err(queued)) => Some(Stage::Waits(queued)),
            Err(_) => Some(Stage::Refused),
        }),
        (Some(Stage::Waits(mut queued)), 0) => {
            if !queued.waiter.has_place.load(Ordering::Relaxed) {
                return None;
            }
            queued.is_over = true;
            Some(Some(Stage::Inside(Taken(places))))
        }
        // Dropped here: it gives up, or leaves.
        (Some(Stage::Waits(_) | Stage::Inside(_)), 1) => Some(None),
        _ => None,
    }
}

/// Every order in which three callers can come, queue, give up and leave, with the end of all places at any time: no place is
/// lost, none given twice, nobody is overtaken or forgotten.
#[test]
fn every_order_of_steps() {
    const CALLERS: usize = 3;
    let mut seen = HashSet::new();
    for limit in 1..=2 {
        // A path is what was done, one of the callers and its step each; the last number closes.
        let mut paths = vec![Vec::<usize>::new()];
        while let Some(path) = paths.pop() {
            let places = Places::new(limit);
            let mut stages: [Option<Stage<'_>>; CALLERS] = Default::default();
            let mut order: Vec<usize> = Vec::new();
            let mut is_possible = true;
            for &action in &path {
                let (caller, what) = (action / 2, action % 2);
                if caller == CALLERS {
                    is_possible = !places.is_closed();
                    places.close();
                    continue;
                }
                let Some(after) = step(&places, stages[caller].take(), what) else {
                    is_possible = false;
                    break;
                };
                stages[caller] = after;
                order.retain(|other| *other != caller);
                if matches!(stages[caller], Some(Stage::Waits(_))) {
                    order.push(caller);
                }
            }
            if !is_possible {
                continue;
            }
            let given = |stage: &Option<Stage<'_>>| match stage {
                Some(Stage::Inside(_)) => true,
                Some(Stage::Waits(queued)) => queued.waiter.has_place.load(Ordering::Relaxed),
                _ => false,
            };
            let taken = stages.iter().filter(|stage| given(stage)).count();
            assert_eq!(places.taken() as usize, taken, "{path:?}");
            assert!(taken <= limit as usize, "{path:?}: {taken} places of {limit}");
            let waits: Vec<_> = order.iter().filter(|caller| !given(&stages[**caller])).collect();
            let first = order.iter().take_while(|caller| given(&stages[**caller])).count();
            assert_eq!(order.len() - first, waits.len(), "{path:?}: overtaken");
            assert!(waits.is_empty() || taken == limit as usize, "{path:?}: forgotten");
            assert_eq!(places.load().has_waiting(), !waits.is_empty(), "{path:?}");
            assert_eq!(places.queue().len(), waits.len(), "{path:?}");
            let stages: Vec<_> = stages
                .iter()
                .map(|stage| match stage {
                    None => 0,
                    Some(Stage::Outside) => 1,
                    Some(Stage::Refused) => 2,
                    Some(Stage::Waits(_)) => 3 + u8::from(given(stage)),
                    Some(Stage::Inside(_)) => 5,
                })
                .collect();
            if seen.insert((limit, places.load().0, stages, order)) {
                paths.extend((0..CALLERS * 2 + 1).map(|action| [&path[..], &[action]].concat()));
            }
        }
    }
    assert!(seen.len() > 200, "{} states", seen.len());
}

/// Threads that come, wait, give up and leave as fast as they can.
#[test]
fn many_threads() {
    const LIMIT: usize = 3;
    let (places, inside, served) = (Places::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (places, inside, served, runtime) = (&places, &inside, &served, &runtime);
            scope.spawn(move || {
                for n in 0..5_000 {
                    let taken = places.try_take().or_else(|_| {
                        runtime.block_on(async {
                            // Some do not wait for long.
                            let take = std::pin::pin!(places.take());
                            let patience = if (n + thread) % 3 == 0 { 1 } else { u32::MAX };
                            give_up(take, patience).await.unwrap_or(Err(NoPlace::Full))
                        })
                    });
                    let Ok(taken) = taken else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
                    served.fetch_add(1, Ordering::Relaxed);
                    if n % 7 == 0 {
                        std::thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(taken);
                }
            });
        }
    });
    assert_eq!((places.load(), places.queue().len()), (Word(0), 0), "nothing is left over");
    assert!(served.load(Ordering::Relaxed) >= 8 * 5_000 * 2 / 3);
    places.close();
    runtime.block_on(places.wait_idle());
    assert_eq!(places.try_take().err(), Some(NoPlace::Closed));
}

/// `None` when it was pending `patience` times.
async fn give_up<F: Future>(mut future: std::pin::Pin<&mut F>, mut patience: u32) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => {
            patience -= 1;
            if patience == 0 { std::task::Poll::Ready(None) } else { std::task::Poll::Pending }
        }
    })
    .await
}

/// Whoever waits for the end is told by the last who leaves, and only then.
#[tokio::test]
async fn the_last_one_tells() {
    let places = Places::new(2);
    let (first, second) = (places.try_take().unwrap(), places.try_take().unwrap());
    places.close();
    let mut idle = std::pin::pin!(places.wait_idle());
    assert!(give_up(idle.as_mut(), 1).await.is_none());
    drop(first);
    assert!(give_up(idle.as_mut(), 1).await.is_none());
    drop(second);
    assert!(give_up(idle.as_mut(), 1).await.is_some());
}
