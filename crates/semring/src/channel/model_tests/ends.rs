//! What a process stores before it gives its role up, so that others read it when they find the role free.

use loom::thread;

use super::{Model, ROOMY, send};
use crate::error::RecvError;
use crate::model::explore;
use crate::sync::Ordering;

/// The consumer that finds no producer any more counts those that finished.
#[test]
fn model_producer_counts_as_finished_before_it_leaves() {
    explore(Some(2), || {
        let model = Model::new(1, ROOMY);
        let producer = model.producer();
        let mut consumer = model.consumer();
        let leaving = thread::spawn(move || drop(producer));
        let end = consumer.recv().err();
        let died = matches!(end, Some(RecvError::EndOfStream { died: 1.., .. }));
        assert!(!died, "a producer that finished counts as dead");
        leaving.join().unwrap();
    });
}

/// A process that sees the ring closed also sees for which producers: the unread messages of those are refused.
#[test]
fn model_closing_consumer_refuses_before_it_is_closed() {
    explore(Some(2), || {
        let model = Model::new(1, ROOMY);
        let mut producer = model.producer();
        let consumer = model.consumer();
        send(&mut producer, 1);
        let closing = thread::spawn(move || consumer.close());
        let page = model.view.consumer();
        if page.flags.load(Ordering::Acquire) != 0 {
            let refused = page.refused.load(Ordering::Relaxed);
            assert_eq!(refused, 1, "closed, and nothing is refused");
        }
        closing.join().unwrap();
    });
}
