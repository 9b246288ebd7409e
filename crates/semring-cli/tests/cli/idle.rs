//! A pair that has nothing to do does nothing.

use std::fs;
use std::time::{Duration, Instant};

use semring_testkit::process::POLLING;

use crate::support::{DONE, Ring, Tool, over_both_backends, wait_until};

over_both_backends! {
    an_idle_pair_uses_no_cpu,
    a_producer_that_waits_for_room_uses_no_cpu,
}

/// The resources used by a process so far.
#[derive(Debug)]
struct Use {
    /// Time on a CPU, as the scheduler counts it. (The ticks in `stat` are samples: a process that its own
    /// timer wakes right at a tick is charged with all of it.)
    time: Duration,
    /// The number of times that one of its threads has gone to sleep.
    sleeps: u64,
    seen: Instant,
}

impl Use {
    fn of(tool: &Tool) -> Use {
        let mut sum = Use {
            time: Duration::ZERO,
            sleeps: 0,
            seen: Instant::now(),
        };
        let tasks = fs::read_dir(format!("/proc/{}/task", tool.pid())).expect("it lives");
        for task in tasks {
            let task = task.expect("it lives").path();
            let read = |file| fs::read_to_string(task.join(file)).expect("it lives");
            let schedule = read("schedstat");
            let time = schedule.split(' ').next().expect("nanoseconds first");
            sum.time += Duration::from_nanos(time.parse().expect("a number"));
            let status = read("status");
            let mut lines = status.lines();
            let sleeps = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let sleeps = sleeps.expect("a line of this name").trim();
            sum.sleeps += sleeps.parse::<u64>().expect("a number");
        }
        sum
    }

    /// Since then it has checked its surroundings at most twice a second: a producer that waits for
    /// stdin checks each 500 ms whether its consumer is alive, a consumer whether its reader is, as
    /// neither gets an event. (This is no assertion on time: a busy machine makes fewer checks, not
    /// more.)
    #[track_caller]
    fn assert_idle_since(&self, before: &Use) {
        let seconds = self.seen.duration_since(before.seen).as_secs_f64();
        let sleeps = self.sleeps - before.sleeps;
        let looks = 2.0 * seconds + 1.0;
        // A look may sleep once itself, on a lock of the kernel.
        assert!(
            (sleeps as f64) <= 2.0 * looks,
            "{sleeps} sleeps in {seconds} s"
        );
        // A check takes microseconds; a spinning process takes all the time of a CPU.
        let time = self.time - before.time;
        assert!(time < WINDOW / 20, "{time:?} on a CPU in {seconds} s");
    }
}

/// Long enough for a process that spins or polls quickly to be seen: 120 sleeps at 10 ms.
const WINDOW: Duration = Duration::from_millis(1200);

#[track_caller]
fn assert_idle(tools: &[&Tool]) {
    let before: Vec<Use> = tools.iter().map(|tool| Use::of(tool)).collect();
    std::thread::sleep(WINDOW);
    for (tool, before) in tools.iter().zip(&before) {
        Use::of(tool).assert_idle_since(before);
    }
}

fn an_idle_pair_uses_no_cpu(ring: &Ring) {
    let mut consumer = ring.consumer(&[]).start();
    let mut producer = ring.producer(&[]).stdin_open().start();
    producer.write("1\n");
    consumer.wait_for_stdout("1\n");
    wait_until("the line is released", || {
        ring.number("received_messages") == 1
    });
    consumer.wait_until_asleep_on_the_ring();
    producer.wait_until_in(&[POLLING, &[libc::SYS_read]].concat());
    assert_idle(&[&consumer, &producer]);
    // And they wake up.
    producer.write("2\n");
    consumer.wait_for_stdout("1\n2\n");
    producer.finish().quietly(DONE);
    consumer.finish().quietly(DONE);
    ring.assert_gone();
}

fn a_producer_that_waits_for_room_uses_no_cpu(ring: &Ring) {
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    assert_idle(&[&producer]);
    producer.kill();
}
