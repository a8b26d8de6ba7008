// SPDX-License-Identifier: GPL-2.0

//! Random requests and functions, biased towards the boundaries, against the model.

use crate::{
    driver::check,
    model::{
        Fields,
        Limits,
        Window, //
    }, //
};
use proptest::prelude::*;

/// Numbers near a power of two, where the rules have their edges, or anything.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0_u32..64, -9_i64..=9)
            .prop_map(|(bit, delta)| (1_u64 << bit).wrapping_add_signed(delta)),
        2 => 0..0x3000_u64,
        1 => any::<u64>(),
    ]
}

/// A length as it may be, or anything.
fn length() -> impl Strategy<Value = u16> {
    prop_oneof![
        3 => proptest::sample::select(vec![0, 1, 2, 3, 4, 7, 8, 9, 11, 16, 128, 4095, 4096, 4097]),
        2 => 1..=4096_u16,
        1 => any::<u16>(),
    ]
}

prop_compose! {
    fn limits()(
        max in length(),
        bars in proptest::array::uniform6(number()),
        bar in 0..6_u8,
        table in 0..0x4000_u64,
        pba in any::<u32>(),
        vectors in 1..=2048_u64,
    ) -> Limits {
        Limits {
            max,
            bars,
            msix: [
                Window { bar, start: table & !7, len: vectors * 16 },
                Window { bar, start: u64::from(pba & !7), len: vectors.div_ceil(64) * 8 },
            ],
        }
    }
}

prop_compose! {
    fn fields()(
        flags in prop_oneof![9 => proptest::sample::select(vec![1, 2, 4]), 1 => number()],
        gaddr in number(),
        offset in number(),
        len in length(),
        pcias in prop_oneof![9 => 0..6_u8, 1 => any::<u8>()],
        reserved in prop_oneof![19 => Just(0), 1 => any::<u32>()],
        reserved2 in prop_oneof![19 => Just(0), 1 => any::<u8>()],
    ) -> Fields {
        Fields { flags, gaddr, offset, reserved, len, pcias, reserved2 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1 << 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_to_the_20_random_requests_agree_with_the_model(fields in fields(), limits in limits()) {
        check(&fields, &limits);
    }
}
