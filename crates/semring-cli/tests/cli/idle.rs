//! A pair that has nothing to do does nothing.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{DONE, Ring, Tool, over_both_backends, wait_until};

over_both_backends! {
    an_idle_pair_uses_no_cpu,
    a_producer_that_waits_for_room_uses_no_cpu,
}

/// What a process has used so far.
#[derive(Debug)]
struct Use {
    /// User and system time, in ticks of 10 ms.
    ticks: u64,
    /// How often one of its threads has gone to sleep, or was put aside.
    switches: u64,
    seen: Instant,
}

impl Use {
    fn of(tool: &Tool) -> Use {
        let stat = fs::read_to_string(format!("/proc/{}/stat", tool.pid())).expect("it lives");
        let (_, behind_the_name) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields: Vec<&str> = behind_the_name.split(' ').collect();
        // utime and stime are fields 14 and 15; this begins with the third.
        let ticks = [11, 12]
            .map(|at| fields[at].parse::<u64>().expect("a number"))
            .iter()
            .sum();
        let tasks = fs::read_dir(format!("/proc/{}/task", tool.pid())).expect("it lives");
        let switches = tasks.map(|task| {
            let status = task.expect("it lives").path().join("status");
            let status = fs::read_to_string(status).expect("it lives");
            let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
            let numbers =
                lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
            numbers.sum::<u64>()
        });
        Use {
            ticks,
            switches: switches.sum(),
            seen: Instant::now(),
        }
    }

    /// Since then it has looked around twice a second at most: a producer that waits for stdin asks
    /// each 500 ms whether its consumer still lives, a consumer whether its reader does, as neither is
    /// told. (That is no assertion on time: a busy machine makes fewer of it, not more.)
    #[track_caller]
    fn assert_idle_since(&self, before: &Use) {
        let seconds = self.seen.duration_since(before.seen).as_secs_f64();
        let switches = self.switches - before.switches;
        let polls = 2.0 * seconds + 1.0;
        // Being put aside in the middle of a look makes it two.
        assert!(
            (switches as f64) <= 2.0 * polls,
            "{switches} switches in {seconds} s"
        );
        // One look takes microseconds; a tick may just fall into it.
        assert!(self.ticks - before.ticks <= 1, "{before:?} {self:?}");
    }
}

/// Long enough for a process that spins or polls quickly to be seen: 100 switches at 10 ms.
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
    producer.wait_until_in(&[libc::SYS_poll, libc::SYS_ppoll, libc::SYS_read]);
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
