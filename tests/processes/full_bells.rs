//! full_bells
