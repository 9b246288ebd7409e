//! Each setting of a ring, named by one side, the other, or both, equal or different; either side comes first, and finds
//! no ring, one that nobody has used, one that was used, or one that `semring create` made.

use crate::support::{
    DONE, KILLED, Output, Ring, Tool, USAGE, over_both_backends, over_pipes, wait_until,
};

over_both_backends! {
    producer_replaces_the_ring_of_a_waiting_consumer,
    either_side_replaces_an_unused_ring,
    consumer_meets_the_ring_of_a_producer,
    either_side_meets_a_ring_with_messages,
    producer_meets_the_ring_of_a_following_consumer,
    either_side_meets_a_created_ring,
}

/// A setting, and two values of it besides the default.
struct Setting {
    option: &'static str,
    /// The field of `semring info --json`.
    field: &'static str,
    /// More than requested will do.
    is_minimum: bool,
    /// As an option has them.
    values: [&'static str; 2],
    /// As the field has them.
    shown: [&'static str; 2],
    default: &'static str,
}

fn settings() -> [Setting; 5] {
    [
        Setting {
            option: "--capacity",
            field: "capacity_bytes",
            is_minimum: true,
            values: ["64K", "1M"],
            shown: ["65536", "1048576"],
            default: "262144",
        },
        Setting {
            option: "--producers",
            field: "lanes",
            is_minimum: true,
            values: ["2", "9"],
            shown: ["2", "9"],
            default: "8",
        },
        Setting {
            option: "--mode",
            field: "mode",
            is_minimum: false,
            values: ["0640", "0660"],
            shown: ["0640", "0660"],
            default: "0600",
        },
        Setting {
            option: "--guard",
            field: "guard",
            is_minimum: false,
            values: ["semaphore", "pipe"],
            shown: ["semaphore", "pipe"],
            default: if over_pipes() { "pipe" } else { "semaphore" },
        },
        Setting {
            option: "--full",
            field: "when_full",
            is_minimum: false,
            values: ["fail", "drop"],
            shown: ["fail", "drop"],
            default: "wait",
        },
    ]
}

/// What one side names: nothing, or one of the two values.
type Named = Option<usize>;

impl Setting {
    fn args(&self, named: Named) -> Vec<&'static str> {
        let named = named.map(|value| [self.option, self.values[value]]);
        named.into_iter().flatten().chain(["-q"]).collect()
    }

    /// The value of a ring that a command with these options makes.
    fn made_by(&self, named: Named) -> &'static str {
        named.map_or(self.default, |value| self.shown[value])
    }

    /// Whether a ring with this value will do for a command.
    fn is_enough(&self, has: &str, named: Named) -> bool {
        let Some(asked) = named.map(|value| self.shown[value]) else {
            return true;
        };
        let number = |text: &str| text.parse::<u64>().expect("a number");
        has == asked || self.is_minimum && number(has) > number(asked)
    }

    #[track_caller]
    fn assert_value(&self, ring: &Ring, expected: &str) {
        let field = &ring.info()[self.field];
        let is = field
            .as_str()
            .map_or_else(|| field.to_string(), str::to_owned);
        assert_eq!(is, expected, "{}", self.field);
    }

    /// It ended with 2, and named both values and what helps.
    #[track_caller]
    fn assert_refused(&self, output: Output, has: &str, named: Named) {
        let asked = self.made_by(named);
        output.refused(
            USAGE,
            &[
                has,
                asked,
                "give the option to the command that starts first",
            ],
        );
    }
}

/// Each setting with all that two commands can name of it.
fn for_all(check: impl Fn(&Setting, Named, Named)) {
    const NAMED: [Named; 3] = [None, Some(0), Some(1)];
    for setting in settings() {
        for first in NAMED {
            for second in NAMED {
                println!("{} {first:?} {second:?}", setting.option);
                check(&setting, first, second);
            }
        }
    }
}

fn waits(ring: &Ring, args: &[&str]) -> Tool {
    let consumer = ring.consumer(args).start();
    ring.wait_for_consumer(&consumer);
    consumer
}

fn producer_replaces_the_ring_of_a_waiting_consumer(ring: &Ring) {
    for_all(|setting, first, second| {
        let consumer = waits(ring, &setting.args(first));
        let mut producer = ring.producer(&setting.args(second)).stdin_open().start();
        let mut value = setting.made_by(first);
        if !setting.is_enough(value, second) {
            value = setting.made_by(second);
        }
        if setting.is_enough(value, first) {
            producer.write("1\n");
            wait_until("the line has come", || consumer.stdout() == b"1\n");
            setting.assert_value(ring, value);
            producer.finish().quietly(DONE);
            consumer.finish().quietly(DONE).wrote("1\n");
        } else {
            setting.assert_refused(consumer.finish(), value, first);
            setting.assert_value(ring, value);
            producer.finish().quietly(DONE);
            let consumer = ring.consumer(&setting.args(second)).run();
            consumer.quietly(DONE);
        }
        ring.assert_gone();
    });
}

/// Whether the second command is a consumer or a producer.
const SIDES: [&str; 2] = ["consumer", "producer"];

/// A consumer was killed while it waited for the first producer.
fn either_side_replaces_an_unused_ring(ring: &Ring) {
    for_all(|setting, first, second| {
        for side in SIDES {
            waits(ring, &setting.args(first)).kill().ended(KILLED);
            let mut value = setting.made_by(first);
            if !setting.is_enough(value, second) {
                value = setting.made_by(second);
            }
            if side == "producer" {
                let producer = ring.producer(&setting.args(second)).input("1\n").run();
                producer.quietly(DONE);
                setting.assert_value(ring, value);
                ring.consumer(&["-q"]).run().quietly(DONE).wrote("1\n");
            } else {
                let consumer = waits(ring, &setting.args(second));
                setting.assert_value(ring, value);
                ring.producer(&["-q"]).input("1\n").run().quietly(DONE);
                consumer.finish().quietly(DONE).wrote("1\n");
            }
            ring.assert_gone();
        }
    });
}

fn consumer_meets_the_ring_of_a_producer(ring: &Ring) {
    for_all(|setting, first, second| {
        let mut producer = ring.producer(&setting.args(first)).stdin_open().start();
        ring.wait_for_producers(1);
        producer.write("1\n");
        let value = setting.made_by(first);
        if setting.is_enough(value, second) {
            let consumer = waits(ring, &setting.args(second));
            producer.finish().quietly(DONE);
            consumer.finish().quietly(DONE).wrote("1\n");
        } else {
            let consumer = ring.consumer(&setting.args(second)).run();
            setting.assert_refused(consumer, value, second);
            setting.assert_value(ring, value);
            producer.finish().quietly(DONE);
            ring.consumer(&["-q"]).run().quietly(DONE).wrote("1\n");
        }
        ring.assert_gone();
    });
}

/// A second command, which finds a ring that it may not replace.
#[track_caller]
fn comes_second(ring: &Ring, setting: &Setting, side: &str, first: Named, second: Named) {
    let value = setting.made_by(first);
    let args = setting.args(second);
    let output = match side {
        "producer" => ring.producer(&args).input("2\n").run(),
        _ => ring.consumer(&args).run(),
    };
    let expected = match (setting.is_enough(value, second), side) {
        (true, "producer") => {
            output.quietly(DONE);
            "1\n2\n"
        }
        (true, _) => {
            output.quietly(DONE).wrote("1\n");
            ""
        }
        (false, _) => {
            setting.assert_refused(output, value, second);
            "1\n"
        }
    };
    if !expected.is_empty() {
        setting.assert_value(ring, value);
        ring.consumer(&["-q"]).run().quietly(DONE).wrote(expected);
    }
}

fn either_side_meets_a_ring_with_messages(ring: &Ring) {
    for_all(|setting, first, second| {
        for side in SIDES {
            let producer = ring.producer(&setting.args(first)).input("1\n").run();
            producer.quietly(DONE);
            comes_second(ring, setting, side, first, second);
            ring.assert_gone();
        }
    });
}

/// The ring was used, and is empty again.
fn producer_meets_the_ring_of_a_following_consumer(ring: &Ring) {
    for_all(|setting, first, second| {
        let args = [&setting.args(first)[..], &["--follow"]].concat();
        let mut consumer = waits(ring, &args);
        ring.producer(&["-q"]).input("1\n").run().quietly(DONE);
        consumer.wait_for_stdout("1\n");
        let value = setting.made_by(first);
        let producer = ring.producer(&setting.args(second)).input("2\n").run();
        if setting.is_enough(value, second) {
            producer.quietly(DONE);
            consumer.wait_for_stdout("1\n2\n");
        } else {
            setting.assert_refused(producer, value, second);
            setting.assert_value(ring, value);
            assert!(consumer.is_alive());
        }
        consumer.kill().ended(KILLED);
        ring.semring("rm", &[]).run().quietly(DONE);
    });
}

/// It is never replaced, used or not, and stays.
fn either_side_meets_a_created_ring(ring: &Ring) {
    for_all(|setting, first, second| {
        for side in SIDES {
            let options = setting.args(first);
            let options = &options[..options.len() - 1]; // it has no -q
            ring.semring("create", options).run().quietly(DONE);
            let uuid = ring.info()["uuid"].clone();
            let value = setting.made_by(first);
            if !setting.is_enough(value, second) {
                let args = setting.args(second);
                let output = match side {
                    "producer" => ring.producer(&args).run(),
                    _ => ring.consumer(&args).run(),
                };
                setting.assert_refused(output, value, second);
            }
            ring.producer(&["-q"]).input("1\n").run().quietly(DONE);
            comes_second(ring, setting, side, first, second);
            setting.assert_value(ring, value);
            assert_eq!(ring.info()["uuid"], uuid);
            ring.semring("rm", &[]).run().quietly(DONE);
        }
    });
}
