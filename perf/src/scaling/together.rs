//! Workers at the same time, each in a thread of its own on a CPU of its own; one alone in turn with all of them.

use super::Setting;
use crate::lab::seeds;
use crate::lab::{Clock, Dealt, Round, Rules, Running, window};
use crate::machine::pin;
use crate::progress::Progress;
use crate::results::Quantities;
use crate::window::{Figures, Window};
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A worker's thread as the one that asks sees it.
struct Hand {
    orders: Sender<Duration>,
    windows: Receiver<Result<Window>>,
}

/// Figures of all workers at the same time, and of one of them alone, preparation included.
pub(super) fn measure(
    setting: &Setting<'_>,
    rules: &Rules,
    queues: &[Arc<[Dealt]>],
    capacity: u32,
    progress: &mut Progress,
) -> Result<Quantities> {
    let workers = queues.len();
    let arguments = setting.arguments;
    progress.step(&format!("{workers} workers at the same time"));
    let clock = Clock::start();
    let count = u8::try_from(workers)?;
    let (_common, seeds) = seeds(rules, setting.steering, count, capacity, arguments.burst, None)?;
    let length = Duration::from_secs_f64(arguments.seconds / (2 * arguments.windows) as f64);
    std::thread::scope(|scope| {
        let mut hands = Vec::with_capacity(workers);
        for (cpu, (seed, queue)) in seeds.into_iter().zip(queues).enumerate() {
            let (orders, ordered) = channel::<Duration>();
            let (done, windows) = channel();
            scope.spawn(move || {
                let worked = (|| {
                    pin(cpu)?;
                    let mut shard = seed.grow(clock.now())?;
                    shard.open(rules, queue, clock.now())?;
                    let generator = Round::new(rules, Arc::clone(queue))?;
                    let mut running = Running { shard: &mut shard, generator };
                    for length in ordered {
                        // Until all caches are as they will be.
                        window(&mut running, arguments.burst, length / 10, clock);
                        // The one that asks has gone when nobody listens.
                        let _ = done.send(Ok(window(&mut running, arguments.burst, length, clock)));
                    }
                    shard.check()
                })();
                if let Err(error) = worked {
                    let _ = done.send(Err(error));
                }
            });
            hands.push(Hand { orders, windows });
        }
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..arguments.windows {
            setting.interrupt.check()?;
            alone.push(run(&hands[..1], length)?);
            together.push(run(&hands, length)?);
        }
        let of = |windows: &[Window]| {
            let figures = Figures::of(windows, setting.machine.tsc_ghz);
            figures.context("workers on all CPUs at once never had them: other programs run on this machine")
        };
        let (alone, together) = (of(&alone)?, of(&together)?);
        Ok(Quantities::from([
            ("together_packets_per_second".to_owned(), together.packets_per_second),
            ("together_raw_ns_per_packet".to_owned(), together.ns_per_packet),
            ("together_windows".to_owned(), together.windows as f64),
            ("alone_packets_per_second".to_owned(), alone.packets_per_second),
            ("together_over_alone".to_owned(), together.packets_per_second / alone.packets_per_second),
        ]))
    })
}

/// A window of these workers at the same time.
fn run(hands: &[Hand], length: Duration) -> Result<Window> {
    for hand in hands {
        // A thread that has ended says why below.
        let _ = hand.orders.send(length);
    }
    let mut all = Window { packets: 0, wall: Duration::ZERO, cpu: Vec::new() };
    for hand in hands {
        let Ok(window) = hand.windows.recv() else { bail!("a worker's thread has ended") };
        let window = window?;
        all.packets += window.packets;
        all.wall = all.wall.max(window.wall);
        all.cpu.extend(window.cpu);
    }
    Ok(all)
}
