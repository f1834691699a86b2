//! The composition axis.
