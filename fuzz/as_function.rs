// What `libfuzzer_sys::fuzz_target` is in the crates' tests/fuzz_targets.rs: a plain function. A
// target whose crate has changed under it is found out by `make test`, not in the next soak.
extern crate self as libfuzzer_sys;

mod stand_in {
    macro_rules! fuzz_target {
        (|$input:ident: $kind:ty| $body:block) => {
            pub fn hold($input: $kind) $body
        };
    }
    pub(crate) use fuzz_target;
}
pub(crate) use stand_in::fuzz_target;
