//! The wire without a server.

use proptest::{collection::vec, prelude::any, prop_assert, proptest};

use super::{
    Contents, Correct, Dimension, KeyId, Slot, SlotCharge, Take, TakeReply, Tell, TellReply, Verdict, charge, ms, one,
};

/// The header of contents whose current slot is 1,000, with a ring of one slot before it.
fn bytes() -> Vec<u8> {
    let mut bytes = b"TGq1".to_vec();
    bytes.extend(9_u32.to_le_bytes());
    for long in [1000_u64, 999, 7, 70] {
        bytes.extend(long.to_le_bytes());
    }
    bytes.extend([3_u32, 30].map(u32::to_le_bytes).concat());
    bytes.extend([86_400_u64, 12].map(u64::to_le_bytes).concat());
    bytes.resize(112 + 999 % 122 * 8, 0xee);
    bytes.extend([4_u32, 40].map(u32::to_le_bytes).concat());
    bytes
}

#[test]
fn contents_are_the_ring_up_to_the_current_slot_and_the_header() {
    let contents = Contents::decode(&bytes()).unwrap();
    assert_eq!(contents.key, KeyId(9));
    assert_eq!(contents.charges, [charge(999, 4, 40), charge(1000, 3, 30)]);
    assert_eq!((contents.day_end.0, contents.today), (86_400, 12));
}

#[test]
fn contents_that_nobody_has_made_or_another_program_wrote_are_none() {
    assert_eq!(Contents::decode(b""), None);
    assert_eq!(Contents::decode(&bytes()[..bytes().len() - 1]), None, "the ring is cut");
    let with = |at: usize, byte| {
        let mut bytes = bytes();
        bytes[at] = byte;
        Contents::decode(&bytes)
    };
    assert_eq!(with(0, b'x'), None);
    assert_eq!(with(4, 0), None, "there is a closing only");
    assert_eq!(with(17, 0), None, "more slots than the ring has");
}

#[test]
fn numbers_are_clamped_to_the_widths_of_the_wire() {
    let question = Take { requests: u64::MAX, limits: [Some(u64::MAX), None, Some(3)], deadline_ms: u64::MAX, ..one() };
    let bytes = question.encode();
    assert_eq!(bytes.len(), 69);
    assert_eq!(bytes[1..9], (1_u64 << 53).to_le_bytes());
    assert_eq!(bytes[29..33], u32::MAX.to_le_bytes());
    assert_eq!(bytes[45..69], [1_u64 << 53, 1 << 53, 3].map(u64::to_le_bytes).concat());
    assert_eq!(Correct::default().encode().len(), 49);
    let tell =
        Tell { all: vec![charge(u64::MAX, 1, u64::MAX)], untold: vec![SlotCharge::default()], ..Tell::default() };
    assert_eq!(tell.encode().len(), 54 + 2 * 16);
    assert_eq!(tell.encode()[54..62], (1_u64 << 53).to_le_bytes());
}

#[test]
fn replies_are_read_by_their_code() {
    let reply = |numbers: &[i64]| TakeReply::decode(numbers).map(|reply| reply.verdict);
    let slot = Slot(77);
    let granted = Verdict::Granted { slot, lease_requests: 5, lease_tokens: 6, is_look: true };
    assert_eq!(reply(&[0, 1, 2, 3, 4, 5, 77, 5, 6, 1]), Some(granted));
    let full = Verdict::Full { dimension: Dimension::RequestsPerDay, wait: ms(9) };
    assert_eq!(reply(&[1, 1, 2, 3, 4, 5, 2, 9]), Some(full));
    assert_eq!(reply(&[2, 1, 2, 3, 4, 5, 8, 9]), Some(Verdict::Closed { look: ms(8), ends: ms(9) }));
    assert_eq!(reply(&[3, 1, 2, 3, 4, 5, 8]), Some(Verdict::Learning { wait: ms(8) }));
    assert_eq!(reply(&[4, 1, 2]), Some(Verdict::Lost));
    assert_eq!(reply(&[5, 1, 0]), Some(Verdict::Late));
    let told = TellReply { now_ms: 1, key: KeyId(2), is_told: true };
    assert_eq!(TellReply::decode(&[0, 1, 2]), Some(told));
    assert_eq!(TellReply::decode(&[5, 1, 0]), Some(TellReply { key: KeyId(0), is_told: false, ..told }));
    for wrong in
        [&[][..], &[0], &[0, 1, 2], &[6, 1, 2], &[1, 1, 2, 3, 4, 5, 3, 9], &[3, -1, 2, 3, 4, 5, 8], &[4, 1, 1 << 33]]
    {
        assert_eq!(TakeReply::decode(wrong), None, "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_and_no_numbers_are_a_panic(bytes in vec(any::<u8>(), 0..1200), numbers in vec(any::<i64>(), 0..11)) {
        let mut with_header = self::bytes();
        with_header.truncate(8);
        with_header.extend(&bytes);
        for bytes in [&bytes, &with_header] {
            if let Some(contents) = Contents::decode(bytes) {
                prop_assert!(contents.charges.len() <= 122);
            }
        }
        let _ = (TakeReply::decode(&numbers), TellReply::decode(&numbers));
    }
}
