//! hand_over
