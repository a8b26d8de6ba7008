// SPDX-License-Identifier: GPL-2.0

//! Every value of the fields that interact, one pair of fields at a time.

use crate::{
    driver::{
        self,
        check,
        Instruction,
        Invalid,
        Request, //
    },
    model::{
        Fields,
        Limits,
        Window, //
    }, //
};

const BLOCKW: u64 = 2;

fn limits() -> Limits {
    Limits {
        max: 4096,
        bars: [1 << 20, 0, 1 << 48, u64::MAX, 8, 4096],
        ..Default::default()
    }
}

/// A block that every rule allows.
fn block() -> Fields {
    Fields {
        flags: BLOCKW,
        gaddr: 0x1000,
        offset: 0x2000,
        len: 16,
        ..Default::default()
    }
}

/// A load that every rule allows.
fn load() -> Fields {
    Fields {
        flags: 1,
        gaddr: 0x1000,
        offset: 0x2000,
        len: 8,
        ..Default::default()
    }
}

#[test]
fn fields_are_where_the_abi_has_them() {
    let mut raw = [0; 32];
    raw[7] = 2;
    raw[8..16].copy_from_slice(&0x0001_0203_0405_0600_u64.to_be_bytes());
    raw[16..24].copy_from_slice(&0x0000_1122_3344_5560_u64.to_be_bytes());
    raw[28..30].copy_from_slice(&0x0123_u16.to_be_bytes());
    raw[30] = 2;
    assert_eq!(
        Request::parse(&raw, &driver::limits(&limits())),
        Ok(Request {
            instruction: Instruction::StoreBlock,
            address: 0x0001_0203_0405_0600,
            len: 0x0123,
            bar: 2,
            offset: 0x0000_1122_3344_5560,
        })
    );
}

#[test]
fn header_says_write_and_the_longest_block() {
    for (maxstbl, max) in [(0, 0), (128, 128), (4096, 4096), (8191, 4096)] {
        let mut expected = [0; 16];
        expected[7] = 1;
        expected[8..10].copy_from_slice(&u16::to_be_bytes(max));
        assert_eq!(
            driver::Limits::new(maxstbl, [0; 6], Default::default()).header(),
            expected
        );
    }
}

/// Checks blocks of every length at every offset in 4 KiB, which `block` makes of the offset.
fn every_length_at_every_offset(block: impl Fn(u64) -> Fields) {
    let limits = limits();
    for len in 0..=4097 {
        for offset in 0..4096 {
            check(
                &Fields {
                    len,
                    ..block(offset)
                },
                &limits,
            );
        }
    }
}

#[test]
fn block_every_length_at_every_offset_in_its_page() {
    every_length_at_every_offset(|offset| Fields {
        gaddr: 0x7000 + offset,
        ..block()
    });
}

#[test]
fn block_every_length_at_every_offset_in_4_kib_of_the_bar() {
    every_length_at_every_offset(|offset| Fields {
        offset: 0x7000 + offset,
        ..block()
    });
}

#[test]
fn block_every_length_against_every_max() {
    for max in 0..=4096 {
        let limits = Limits {
            max,
            bars: [1 << 20; 6],
            ..Default::default()
        };
        for len in [
            0,
            1,
            max.saturating_sub(1),
            max,
            max + 1,
            4096,
            4097,
            u16::MAX,
        ] {
            check(&Fields { len, ..block() }, &limits);
        }
    }
}

#[test]
fn load_and_store_every_length_and_position_in_the_doubleword() {
    let limits = limits();
    for flags in [1, 4] {
        for len in 0..=u16::MAX {
            for offset in 0..8 {
                check(
                    &Fields {
                        flags,
                        len,
                        offset: 0x2000 + offset,
                        ..load()
                    },
                    &limits,
                );
            }
        }
        for len in [1, 2, 4, 8] {
            for gaddr in 0..4096 {
                check(
                    &Fields {
                        flags,
                        len,
                        gaddr: 0x1000 + gaddr,
                        ..load()
                    },
                    &limits,
                );
            }
        }
    }
}

#[test]
fn exactly_one_known_flag() {
    let limits = limits();
    for flags in (0..=0xffff).chain((0..64).map(|bit| 1 << bit)) {
        let parsed = Fields { flags, ..load() }.parse(&limits);
        match flags {
            1 | 2 | 4 => assert!(parsed.is_ok()),
            _ => assert_eq!(parsed, Err(Invalid::Flags)),
        }
    }
}

#[test]
fn every_reserved_bit_must_be_zero() {
    for fields in [block(), load()] {
        assert!(fields.parse(&limits()).is_ok());
        for bit in 0..32 {
            let reserved = 1 << bit;
            assert_eq!(
                Fields { reserved, ..fields }.parse(&limits()),
                Err(Invalid::Reserved)
            );
        }
        for bit in 0..8 {
            let reserved2 = 1 << bit;
            assert_eq!(
                Fields {
                    reserved2,
                    ..fields
                }
                .parse(&limits()),
                Err(Invalid::Reserved)
            );
        }
    }
}

#[test]
fn every_address_space_but_the_bars_is_out_of_reach() {
    for pcias in 6..=u8::MAX {
        for fields in [block(), load()] {
            assert_eq!(
                Fields { pcias, ..fields }.parse(&limits()),
                Err(Invalid::AddressSpace)
            );
        }
    }
}

#[test]
fn access_stays_inside_its_bar() {
    let limits = limits();
    let ends = [0, 8, 4096, 1 << 20, 1 << 48, u64::MAX];
    for pcias in 0..6 {
        for end in ends {
            for before in 0..64 {
                for len in [1, 2, 4, 8, 11, 16, 63] {
                    for flags in [1, 2, 4] {
                        let offset = end.wrapping_sub(before);
                        let fields = Fields {
                            flags,
                            pcias,
                            offset,
                            len,
                            ..block()
                        };
                        check(&fields, &limits);
                    }
                }
            }
        }
    }
    let beyond = Fields {
        offset: u64::MAX,
        len: 1,
        pcias: 3,
        ..block()
    };
    assert_eq!(beyond.parse(&limits), Err(Invalid::Bar));
    let absent = Fields {
        pcias: 1,
        ..block()
    };
    assert_eq!(absent.parse(&limits), Err(Invalid::Bar));
}

#[test]
fn msix_structures_are_out_of_reach() {
    for start in [0, 8, 0x800, 0xff8, 0x1000] {
        for window_len in [0, 8, 16, 64, 2048] {
            let window = Window {
                bar: 0,
                start,
                len: window_len,
            };
            for msix in [[window, Window::default()], [Window::default(), window]] {
                let limits = Limits {
                    max: 4096,
                    bars: [1 << 20; 6],
                    msix,
                };
                for offset in (0..0x1900).step_by(4) {
                    for len in [1, 4, 8, 16, 128] {
                        for flags in [1, 2, 4] {
                            for pcias in [0, 1] {
                                check(
                                    &Fields {
                                        flags,
                                        offset,
                                        len,
                                        pcias,
                                        ..block()
                                    },
                                    &limits,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn memory_of_loads_and_stores_is_a_doubleword() {
    for len in [1, 2, 4, 8] {
        for flags in [1, 4] {
            let request = Fields {
                flags,
                len,
                ..load()
            }
            .parse(&limits());
            assert_eq!(request.map(|request| request.memory_len()), Ok(8));
        }
    }
    let request = Fields { len: 11, ..block() }.parse(&limits());
    assert_eq!(request.map(|request| request.memory_len()), Ok(11));
}

#[test]
fn first_rule_that_is_broken_is_the_one_reported() {
    let mut fields = Fields {
        flags: 3,
        reserved: 1,
        len: 0,
        gaddr: 0x1fff,
        offset: 0x1fff,
        pcias: 9,
        reserved2: 0,
    };
    assert_eq!(fields.parse(&limits()), Err(Invalid::Flags));
    fields.flags = BLOCKW;
    assert_eq!(fields.parse(&limits()), Err(Invalid::Reserved));
    fields.reserved = 0;
    assert_eq!(fields.parse(&limits()), Err(Invalid::Length));
    fields.len = 16;
    assert_eq!(fields.parse(&limits()), Err(Invalid::Boundary));
    fields.offset = 0x1000;
    assert_eq!(fields.parse(&limits()), Err(Invalid::Address));
    fields.gaddr = 0x1000;
    assert_eq!(fields.parse(&limits()), Err(Invalid::AddressSpace));
    fields.pcias = 1;
    assert_eq!(fields.parse(&limits()), Err(Invalid::Bar));
    fields.pcias = 0;
    assert!(fields.parse(&limits()).is_ok());
}
