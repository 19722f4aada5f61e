//! Log events, which the feature `tracing` enables.

#[cfg(feature = "tracing")]
pub(crate) use ::tracing::{debug, error, info, warn};

#[cfg(not(feature = "tracing"))]
mod disabled {
    macro_rules! event {
        ($($tokens:tt)*) => {};
    }
    pub(crate) use {event as debug, event as error, event as info, event as warn};
}

#[cfg(not(feature = "tracing"))]
pub(crate) use disabled::{debug, error, info, warn};
