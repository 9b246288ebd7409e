//! Mutants: the shipped code with one precaution left out. Each must be detected by a test.
//!
//! A mutant is chosen when a process starts, by the environment variable `SEMRING_MUTANT`, in builds for tests and for
//! models only. In every other build [`is`] is the constant `false`, and nothing of this is left.
//!
//! The table below has for each mutant the precaution left out, the test that detects it, and the output of that
//! test. `mutant_tests` runs all of it, and compares the table in docs/reliability.md with it.

use super::Ordering;

/// Whether this process runs the mutant.
#[cfg(not(any(test, semring_loom)))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

/// Whether this process runs the mutant.
#[cfg(any(test, semring_loom))]
pub(crate) fn is(mutant: Mutant) -> bool {
    use std::sync::OnceLock;

    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let chosen = ALL.iter().find(|mutant| format!("{mutant:?}") == name);
        Some(*chosen.expect("SEMRING_MUTANT names a mutant"))
    }) == Some(mutant)
}

/// The ordering, which the mutant weakens to Relaxed.
#[inline(always)]
pub(crate) fn order(mutant: Mutant, order: Ordering) -> Ordering {
    if is(mutant) { Ordering::Relaxed } else { order }
}

#[cfg(any(test, semring_loom))]
std::thread_local! {
    static EARLY_LOOK: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// What a producer found in the consumer's wait word too early: for [`Mutant::LookBeforeHeader`]. Models with one producer
/// only.
pub(crate) fn keep_early_look(_word: u64) {
    #[cfg(any(test, semring_loom))]
    EARLY_LOOK.set(_word);
}

/// The same, to be used.
pub(crate) fn early_look() -> u64 {
    #[cfg(any(test, semring_loom))]
    return EARLY_LOOK.get();
    #[cfg(not(any(test, semring_loom)))]
    0
}

/// Names the mutant that a process is to run.
#[cfg(any(test, semring_loom))]
pub(crate) const VARIABLE: &str = "SEMRING_MUTANT";

/// Where a mutant is caught.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Build {
    /// In the usual build for tests.
    Tests,
    /// In the build for models: orders of stores and fences have no other witness.
    Models,
}

/// A row of the table.
#[cfg(test)]
pub(crate) struct Row {
    pub(crate) mutant: Mutant,
    /// The precaution that is left out.
    pub(crate) what: &'static str,
    pub(crate) build: Build,
    pub(crate) test: &'static str,
    /// The output of the test when it detects the mutant.
    pub(crate) printed: &'static str,
}

macro_rules! mutants {
    ($($build:ident { $($name:ident $what:literal $test:literal $printed:literal)* })*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        // Named by the code in every build, chosen by tests only.
        #[allow(dead_code)]
        pub(crate) enum Mutant {
            $($(#[doc = $what] $name,)*)*
        }

        #[cfg(any(test, semring_loom))]
        const ALL: &[Mutant] = &[$($(Mutant::$name,)*)*];

        #[cfg(test)]
        pub(crate) const TABLE: &[Row] = &[$($(Row {
            mutant: Mutant::$name,
            what: $what,
            build: Build::$build,
            test: $test,
            printed: $printed,
        },)*)*];
    };
}

mutants! {
    Models {
        NextHeaderClearedLate
            "the next header is cleared (K1) before this one is published (K3)"
            "ring::model_tests::publication::model_next_header_is_cleared_before_publication"
            "message 1 differs from the message sent"
        NoSlackWord
            "the word for the next header counts as occupied"
            "ring::model_tests::publication::model_slack_word_keeps_a_full_lane_going"
            "exceeded maximum number of branches"
        RelaxedCommit
            "the header is stored (K3) with Release"
            "ring::model_tests::publication::model_the_header_that_publishes_is_a_release"
            "Causality violation"
        RelaxedLoad
            "the slow path loads a header with Acquire"
            "ring::model_tests::publication::model_the_header_that_publishes_is_a_release"
            "Causality violation"
        RelaxedFastLoad
            "the fast path loads a header with Acquire"
            "channel::model_tests::wake_ups::model_the_fast_path_acquires_what_it_finds"
            "Causality violation"
        RelaxedRelease
            "`released` is stored with Release"
            "ring::model_tests::publication::model_released_is_a_release"
            "Causality violation"
        RelaxedReleasedLoad
            "`released` is loaded with Acquire"
            "ring::model_tests::publication::model_released_is_a_release"
            "Causality violation"
        CommittedBeforeHeader
            "`committed` is stored (K4) after the header (K3)"
            "ring::model_tests::killed_producer::model_producer_killed_in_send_keeps_messages"
            "exceeded maximum number of branches"
        CommittedBeforeBatch
            "the same at the end of a batch"
            "ring::model_tests::killed_producer::model_batch_of_killed_producer_is_whole_or_absent"
            "exceeded maximum number of branches"
        BatchShownEarly
            "the first header of a batch is stored last"
            "ring::model_tests::publication::model_a_batch_appears_all_at_once"
            "a part of the batch is missing"
        NoWalkBeyondCommitted
            "a successor walks over what was published beyond `committed`"
            "ring::model_tests::killed_producer::model_successor_killed_taking_over_loses_nothing"
            "Causality violation"
        ArrayWordLate
            "the word behind an array's header is stored before the header"
            "ring::model_tests::arrays::model_arrays_arrive_whole_and_once"
            "a sound lane"
        PartialClearedEarly
            "`partial` is cleared after `released` has moved past its array"
            "ring::model_tests::arrays::model_killed_inside_array_repeats_no_flushed"
            "comes again although a flush had returned"
        StalePartialKept
            "a new consumer clears a `partial` that does not fit `released`"
            "ring::model_tests::arrays::model_stale_partial_skips_no_message"
            "was skipped"
        OpenPartLate
            "a producer stores that a part is open before the part"
            "ring::model_tests::parts::model_killed_inside_a_line_ends_it_once"
            "a cut is missing"
        OpenPartOverwritten
            "of the two words for the open part, the one that holds stays until the next part is there"
            "ring::model_tests::parts::model_killed_inside_a_line_ends_it_once"
            "a cut is missing"
        PaddingEndsPart
            "padding after a part moves the place where it is open"
            "ring::model_tests::parts::model_killed_inside_a_line_ends_it_once"
            "a cut is missing"
        StalePartKept
            "a new producer clears what a killed one stored for a part that it did not publish"
            "ring::model_tests::parts::model_killed_inside_a_line_ends_it_once"
            "a cut after a whole message"
        ContinuedLate
            "a consumer stores that a part is continued before it releases the part"
            "ring::model_tests::parts::model_line_goes_on_after_a_killed_consumer"
            "the rest of a line"
        ContinuedOverwritten
            "of the two words for the continued part, the one that holds stays until the next part is released"
            "ring::model_tests::parts::model_line_goes_on_after_a_killed_consumer"
            "the rest of a line"
        PaddingEndsContinued
            "padding after a released part moves the place where the line goes on"
            "ring::model_tests::parts::model_line_goes_on_after_a_killed_consumer"
            "the rest of a line"
        SentAfterCommitted
            "`sent` is stored before `committed`"
            "ring::model_tests::counts::model_counts_are_never_too_low"
            "too few were sent"
        ReceivedAfterReleased
            "`received` is stored before `released`"
            "ring::model_tests::counts::model_counts_are_never_too_low"
            "too few were received"
        GenerationBeforeStart
            "a new producer stores where it begins before its generation"
            "channel::model_tests::wake_ups::model_a_message_has_the_generation_of_its_sender"
            "the generation of another producer"
        NoSleeperFence
            "the sleeper has a full fence between its announcement and its last look"
            "guard::model_tests::model_a_sleeper_that_announced_itself_is_woken"
            "deadlock"
        NoRoomWakerFence
            "the consumer has a full fence between `released` and its look at a producer's wait word"
            "guard::model_tests::model_a_sleeper_that_announced_itself_is_woken"
            "deadlock"
        NoMessageWakerFence
            "a producer in fenced mode has a full fence between a header and its look at the consumer's wait word"
            "channel::model_tests::wake_ups::model_a_sleeping_consumer_is_woken"
            "deadlock"
        NoLastLook
            "the sleeper looks once more after its announcement"
            "channel::model_tests::wake_ups::model_a_sleeping_consumer_is_woken"
            "deadlock"
        FlushAfterLastLook
            "tokens are drained before the last look, not after it"
            "channel::model_tests::wake_ups::model_a_token_for_an_announcement_is_kept"
            "deadlock"
        NoPostAfterCut
            "a producer that begins after a part of its predecessor's posts a consumer that waits for the rest"
            "channel::model_tests::deaths::model_line_ends_at_the_next_producer"
            "deadlock"
        NoFenceAfterCut
            "a full fence between that producer's beginning and its look at the consumer's wait word"
            "channel::model_tests::deaths::model_line_ends_at_the_next_producer"
            "deadlock"
        CutSkipped
            "a consumer that waits for a part stops at the record that ends the line, in the look that would skip it"
            "channel::model_tests::deaths::model_line_ends_at_the_next_producer"
            "deadlock"
        WakerClearsWord
            "only the sleeper clears its wait word"
            "channel::model_tests::deaths::model_stopped_producer_delays_only_its_message"
            "deadlock"
        EpochsRestart
            "no epoch is one that a predecessor used"
            "guard::model_tests::model_the_successor_of_a_killed_sleeper_is_woken"
            "deadlock"
        EndBeforeLastLook
            "the end of the stream is checked before the last look"
            "channel::model_tests::wake_ups::model_last_message_precedes_the_end"
            "a message: EndOfStream"
        InterruptFlagAfterPost
            "an interruption raises its flag before it posts"
            "channel::model_tests::wake_ups::model_an_interrupted_sleeper_wakes"
            "deadlock"
        NoPostAtInterrupt
            "an interruption posts"
            "channel::model_tests::wake_ups::model_an_interrupted_sleeper_wakes"
            "deadlock"
        NoFenceAfterFlag
            "a full fence between the flag of asymmetric mode and the next look at the wait word"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        FenceBeforeFlag
            "that fence comes after the flag"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        NoLookInAsymmetric
            "the look at the wait word after a commit in asymmetric mode"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        LookBeforeHeader
            "that look comes after the header"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        NoLookAfterAsymmetric
            "a fence and another look by a commit that leaves asymmetric mode"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        FlagsBeforeSleeperFence
            "the sleeper reads the flags after its fence"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        NoBarrier
            "the sleeper issues a barrier while a lane is in asymmetric mode"
            "channel::model_tests::modes::model_no_wake_up_is_lost_between_the_modes"
            "deadlock"
        FinishedAfterLeave
            "a producer counts as finished before it gives its role up"
            "channel::model_tests::ends::model_producer_counts_as_finished_before_it_leaves"
            "a producer that finished counts as dead"
        ClosedBeforeRefused
            "a consumer that closes stores whom it refuses before it is closed"
            "channel::model_tests::ends::model_closing_consumer_refuses_before_it_is_closed"
            "closed, and nothing is refused"
        NoHolderFence
            "a full fence between the words of a role's holder and its look at the record word"
            "lifecycle::holder::model_tests::model_holder_or_maker_sees_the_other"
            "have not seen each other"
        NoMakerFence
            "a full fence between the announcement of a maker of a guard and its look for holders"
            "lifecycle::holder::model_tests::model_holder_or_maker_sees_the_other"
            "have not seen each other"
        MakerAnnouncesLate
            "a maker of a guard announces itself before it looks for holders"
            "lifecycle::holder::model_tests::model_holder_or_maker_sees_the_other"
            "have not seen each other"
    }
    Tests {
        NoWakeAfterSend
            "`send` wakes the consumer"
            "channel::wake_tests::send_wakes_the_consumer"
            "no sleeper was woken"
        NoWakeAfterCommit
            "the commit of a reservation wakes the consumer"
            "channel::wake_tests::commit_wakes_the_consumer"
            "no sleeper was woken"
        NoWakeAfterArray
            "an array wakes the consumer"
            "channel::wake_tests::array_wakes_the_consumer"
            "no sleeper was woken"
        NoWakeAfterBatch
            "the end of a batch wakes the consumer"
            "channel::wake_tests::batch_wakes_the_consumer"
            "no sleeper was woken"
        NoWakeBeforeRoomWait
            "a batch that has to wait for room wakes the consumer first"
            "channel::wake_tests::batch_wakes_the_consumer_before_it_waits_for_room"
            "no sleeper was woken"
        NoWakeAfterPadding
            "padding without a message wakes the consumer"
            "channel::wake_tests::padding_wakes_the_consumer"
            "no sleeper was woken"
        MessagePostNotRepeated
            "a producer whose post failed posts with the next message"
            "channel::wake_tests::producer_repeats_a_post_that_failed"
            "no sleeper was woken"
        NoWakeAfterRelease
            "a release wakes the producer"
            "channel::wake_tests::release_wakes_the_producer"
            "no sleeper was woken"
        RoomPostNotRepeated
            "a consumer whose post failed posts with the next release"
            "channel::wake_tests::consumer_repeats_a_post_that_failed"
            "no sleeper was woken"
        NoFlush
            "a consumer releases what it has before it sleeps"
            "channel::wake_tests::consumer_releases_before_it_sleeps"
            "no sleeper was woken"
        NoWakeAtCorruption
            "a corrupt lane wakes its producer"
            "channel::wake_tests::corrupt_lane_wakes_its_producer"
            "no sleeper was woken"
        NoWakeAtClose
            "a consumer that closes wakes the producers"
            "channel::wake_tests::close_wakes_the_producers"
            "no sleeper was woken"
        PolledDrainAfterLastLook
            "a polled handle drains tokens before its last look"
            "channel::wake_tests::polled_handle_finds_earlier_messages"
            "a message that came before the announcement"
        PolledNoLastLook
            "a polled handle looks once more after its announcement"
            "channel::wake_tests::polled_handle_finds_earlier_messages"
            "a message that came before the announcement"
        PolledNoPostWhenFound
            "a polled handle that found something stays readable"
            "channel::wake_tests::polled_handle_that_found_something_stays_readable"
            "no sleeper was woken"
        PolledCertain
            "a polled handle whose barrier is refused stays readable"
            "channel::wake_tests::polled_handle_without_barriers_stays_readable"
            "no sleeper was woken"
        UncertainSleepsLong
            "a consumer whose barrier is refused sleeps for a moment only"
            "channel::wake_tests::consumer_without_barriers_sleeps_for_a_moment"
            "a long sleep"
        BarrierStaysPromised
            "a consumer whose barrier is refused promises none any more"
            "channel::wake_tests::consumer_without_barriers_sleeps_for_a_moment"
            "barriers are promised"
        NoPostAfterPolledWait
            "a polled handle stays readable after a blocking call"
            "channel::wake_tests::polled_handle_stays_readable_after_a_wait"
            "no sleeper was woken"
        NoPostAtPollable
            "a handle is readable when its descriptor is given out"
            "channel::wake_tests::new_descriptor_is_readable"
            "no sleeper was woken"
        AttachmentsCountedOnce
            "attachments are counted again after the check for producers"
            "channel::wake_tests::producer_that_came_and_went_within_a_check_counts"
            "the end of the stream came twice"
        NoCheckInFencedMode
            "a producer in fenced mode checks its consumer after 16 messages"
            "channel::wake_tests::death_is_noticed_after_16_messages"
            "the death of the consumer was not noticed"
        EntryTrustsProgress
            "a lane that enters asymmetric mode checks the guard, whatever was released"
            "channel::wake_tests::death_is_noticed_on_entry_into_asymmetric_mode"
            "the death of the consumer was not noticed"
        NoCheckAfterBytes
            "a producer checks its consumer after 4 KiB"
            "channel::wake_tests::death_is_noticed_after_4_kib"
            "the death of the consumer was not noticed"
        AnyConsumerMakesBarriers
            "a lane enters asymmetric mode only if the present consumer makes barriers"
            "channel::wake_tests::no_asymmetric_mode_for_a_consumer_without_barriers"
            "the lane is in asymmetric mode"
        NoUndoTokenOfProducer
            "the undo token of a producer"
            "guard::semaphore::tests::kernel_frees_a_dead_holders_roles_and_wakes"
            "left == right"
        NoUndoTokensOfConsumer
            "the undo tokens of the consumer"
            "guard::semaphore::tests::kernel_frees_a_dead_holders_roles_and_wakes"
            "left == right"
        LaneWithoutUndo
            "undo of a producer's role slot"
            "guard::semaphore::tests::kernel_frees_a_dead_holders_roles_and_wakes"
            "left == right"
        ProducersWithoutUndo
            "undo of the number of producers"
            "guard::semaphore::tests::kernel_frees_a_dead_holders_roles_and_wakes"
            "left == right"
        ConsumerWithoutUndo
            "undo of the consumer's role slot"
            "guard::semaphore::tests::kernel_frees_a_dead_holders_roles_and_wakes"
            "left == right"
        NoTokenAtProducerLeave
            "a producer that detaches posts (semaphores)"
            "guard::semaphore::tests::leaving_producer_is_counted_and_wakes"
            "left == right"
        NoTokenAtConsumerLeave
            "a consumer that detaches posts (semaphores)"
            "guard::semaphore::tests::leaving_consumer_wakes_every_producer"
            "left == right"
        PipeRingsAfterLife
            "a successor posts before it opens its liveness lock (pipes)"
            "guard::pipe::tests::successor_posts_before_its_liveness_lock"
            "no sleeper was woken"
        NoTokenAtPipeLeave
            "a producer or consumer that detaches posts (pipes)"
            "guard::pipe::tests::a_holder_that_leaves_posts"
            "no sleeper was woken"
        NoTokenAtPipeRemoval
            "a remover posts (pipes)"
            "guard::pipe::tests::remover_posts_to_both_sides"
            "no sleeper was woken"
    }
}
