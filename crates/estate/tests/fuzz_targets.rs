//! The fuzz targets of this crate, on inputs by proptest; `fuzz/run` looks further.

include!("../../../fuzz/as_function.rs");

#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/estate_frame.rs"]
mod estate_frame;
#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/estate_message.rs"]
mod estate_message;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn frames_and_messages(bytes in vec(any::<u8>(), 0..200)) {
        estate_frame::hold(&bytes);
        estate_message::hold(&bytes);
    }
}
