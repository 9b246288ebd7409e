//! Processes killed at random moments and started again, and an audit: no message lost, damaged or
//! reordered; twice only with the same position. `SEMRING_KILLS` makes it longer, `SEMRING_SEED`
//! repeats a run.

use crate::fixture::{Fixture, Random, answer, ask, say_ok, setting};
use semring_testkit::audit::Audit;
use semring_testkit::peer::Peer;
use std::path::Path;
use std::time::Duration;

over_both_backends! {
    a_consumer_killed_again_and_again_loses_nothing
    producers_killed_repeatedly_lose_nothing
}

/// The longest time that a process lives before it is killed.
const LIFE: Duration = Duration::from_millis(4);

/// Adds the messages in a consumer's log; a line that was cut short was not released.
fn enter(audit: &mut Audit, log: &Path) -> u64 {
    audit.consumer_changed();
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut entered = 0;
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        if words[0] == "damaged" {
            audit.torn(line);
            continue;
        }
        audit.received(number(0) as u32, number(1), number(2) as u32, number(3));
        entered += 1;
    }
    std::fs::remove_file(log).ok();
    entered
}

fn a_consumer_killed_again_and_again_loses_nothing(mut fixture: Fixture) {
    let mut random = Random::new("consumer restarts");
    let kills = setting("SEMRING_KILLS", 60);
    let ring = fixture.ring_of(3, 1 << 14);
    let (log, record) = (fixture.file("log"), fixture.file("record"));
    let mut audit = Audit::new();
    let mut producers: Vec<Peer> = (0..3).map(|_| fixture.producer()).collect();
    // Enough to go on for about as long as the kills.
    let count = kills * 2000;
    for (number, producer) in (1..).zip(&mut producers) {
        let len = [24, 120, 1000][number - 1];
        producer.say(&format!(
            "feed {number} 0 {count} {len} {}",
            record.display()
        ));
    }
    let mut received = 0;
    for _ in 0..kills {
        let mut consumer = fixture.consumer();
        consumer.say(&format!("keep {}", log.display()));
        random.pass(LIFE);
        consumer.kill();
        received += enter(&mut audit, &log);
    }
    let mut consumer = fixture.consumer();
    consumer.say(&format!("keep {}", log.display()));
    for producer in &mut producers {
        assert_eq!(answer(producer), "ok");
        producer.wait();
    }
    assert!(answer(&mut consumer).starts_with("ended "));
    received += enter(&mut audit, &log);
    audit.read_record(&record).unwrap();
    let report = audit.report();
    println!("{kills} kills, {received} arrivals: {report}");
    report.assert_clean(true);
    assert_eq!(report.committed, 3 * count);
    assert_eq!(ring.info().unwrap().unread_messages(), 0);
    drop((producers, consumer));
    fixture.finish();
}

fn producers_killed_repeatedly_lose_nothing(mut fixture: Fixture) {
    let mut random = Random::new("producer restarts");
    let kills = setting("SEMRING_KILLS", 60);
    let ring = fixture.ring_of(2, 1 << 12);
    let (log, record) = (fixture.file("log"), fixture.file("record"));
    let mut audit = Audit::new();
    let mut consumer = fixture.consumer();
    // A producer that stays, so that the stream does not end between two others.
    let mut resident = fixture.producer();
    consumer.say(&format!("keep {}", log.display()));
    for number in 1..=kills as u32 {
        let mut producer = fixture.producer();
        let len = 24 + random.below(900);
        producer.say(&format!(
            "feed {number} 0 100000000 {len} {}",
            record.display()
        ));
        random.pass(LIFE);
        producer.kill();
        audit.producer_killed(number, 1);
    }
    say_ok(&mut resident, "send 9999 0 1 24");
    resident.wait();
    assert!(answer(&mut consumer).starts_with("ended "));
    enter(&mut audit, &log);
    audit.read_record(&record).unwrap();
    audit.committed(9999, 0);
    let report = audit.report();
    println!("{kills} kills: {report}");
    report.assert_clean(false);
    assert_eq!(ring.info().unwrap().unread_messages(), 0);
    assert_eq!(ask(&mut consumer, "recv-timeout 10"), "error TimedOut");
    drop(consumer);
    fixture.finish();
}
