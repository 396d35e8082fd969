//! Key rotation, replay and addressing, as scenarios.

use crate::samples;
use flowferry_wire::*;

const ME: u32 = 4;
const YOU: Mac = [2, 0, 0, 0, 0, 4];

fn key(fill: u8) -> Key {
    Key::new(vec![fill; KEY_MIN]).unwrap()
}

fn send(sealer: &mut Sealer, keys: &KeyRing) -> Vec<u8> {
    let mut message = Message::new(Command::Query, 1, ME);
    sealer
        .seal(
            keys,
            &mut message,
            YOU,
            samples::CONTROLLER_MAC,
            DEFAULT_MTU,
        )
        .unwrap()
}

fn reason(result: Result<Verified<Message>, Rejection>) -> &'static str {
    result.map_or_else(|rejection| rejection.reason(), |_| "accepted")
}

#[test]
fn keys_rotate_without_a_gap() {
    let mut mine = KeyRing::new(1, key(1));
    let mut theirs = mine.clone();
    let mut sealer = Sealer::new(CONTROLLER, 1);
    let mut opener = Opener::new(ME);
    let mut try_now = |theirs: &KeyRing, mine: &KeyRing| {
        let frame = send(&mut sealer, theirs);
        reason(opener.open(mine, &frame))
    };

    assert_eq!(try_now(&theirs, &mine), "accepted");
    theirs.add(2, key(2)).unwrap();
    mine.add(2, key(2)).unwrap();
    assert_eq!(try_now(&theirs, &mine), "accepted");
    theirs.activate(2).unwrap();
    assert_eq!(try_now(&theirs, &mine), "accepted", "one side has switched");
    mine.activate(2).unwrap();
    mine.retire(1).unwrap();
    assert_eq!(try_now(&theirs, &mine), "accepted");
    theirs.activate(1).unwrap();
    assert_eq!(
        try_now(&theirs, &mine),
        "retired_key",
        "a straggler is named"
    );
    let rejected: Vec<_> = opener.rejected().filter(|(_, n)| *n > 0).collect();
    assert_eq!((opener.accepted(), rejected), (4, vec![("retired_key", 1)]));
}

#[test]
fn a_key_switched_too_early_is_unknown() {
    let mine = KeyRing::new(1, key(1));
    let mut theirs = mine.clone();
    theirs.add(2, key(2)).unwrap();
    theirs.activate(2).unwrap();
    let frame = send(&mut Sealer::new(CONTROLLER, 1), &theirs);
    let error = Opener::new(ME).open(&mine, &frame).unwrap_err();
    assert_eq!(
        error,
        Rejection::UnknownKey {
            id: 2,
            from: CONTROLLER
        }
    );
}

#[test]
fn the_same_id_with_another_secret_is_a_bad_tag() {
    let frame = send(&mut Sealer::new(CONTROLLER, 1), &KeyRing::new(1, key(2)));
    let result = Opener::new(ME).open(&KeyRing::new(1, key(1)), &frame);
    assert_eq!(reason(result), "bad_tag");
}

#[test]
fn steps_of_a_rotation_out_of_order_are_refused() {
    let mut keys = KeyRing::new(1, key(1));
    assert_eq!(keys.add(1, key(9)), Err(KeyError::Used { id: 1 }));
    assert_eq!(keys.activate(2), Err(KeyError::Unknown { id: 2 }));
    assert_eq!(keys.retire(1), Err(KeyError::Active { id: 1 }));
    assert_eq!(keys.retire(2), Err(KeyError::Unknown { id: 2 }));
    keys.add(2, key(2)).unwrap();
    keys.activate(2).unwrap();
    keys.retire(1).unwrap();
    assert_eq!(keys.retire(1), Err(KeyError::Unknown { id: 1 }));
    assert_eq!(keys.activate(1), Err(KeyError::Unknown { id: 1 }));
    assert_eq!(keys.add(1, key(9)), Err(KeyError::Used { id: 1 }));
    assert_eq!(
        (keys.active(), keys.ids().collect::<Vec<_>>()),
        (2, vec![2])
    );
    assert_eq!(
        Key::new(vec![0; 31]).unwrap_err(),
        KeyError::TooShort { len: 31 }
    );
}

#[test]
fn secrets_are_never_printed() {
    let ring = KeyRing::new(
        1,
        Key::new(b"correct horse battery staple, 32+".to_vec()).unwrap(),
    );
    for text in [format!("{ring:?}"), format!("{ring:#?}")] {
        assert!(
            !text.contains("horse") && !text.contains("99, 111"),
            "{text}"
        );
    }
    assert_eq!(format!("{:?}", key(1)), "Key(secret)");
}

#[test]
fn a_copy_is_rejected_and_so_is_an_old_boot() {
    let keys = KeyRing::new(1, key(1));
    let mut opener = Opener::new(ME);
    let mut old = Sealer::new(CONTROLLER, 10);
    let (first, second) = (send(&mut old, &keys), send(&mut old, &keys));
    assert_eq!(reason(opener.open(&keys, &second)), "accepted");
    assert_eq!(
        reason(opener.open(&keys, &first)),
        "accepted",
        "late, not old"
    );
    assert_eq!(reason(opener.open(&keys, &first)), "replayed");

    let mut new = Sealer::new(CONTROLLER, 11);
    let restarted = send(&mut new, &keys);
    assert_eq!(reason(opener.open(&keys, &restarted)), "accepted");
    assert_eq!(reason(opener.open(&keys, &restarted)), "replayed");
    let straggler = send(&mut old, &keys);
    assert_eq!(reason(opener.open(&keys, &straggler)), "stale");
}

#[test]
fn a_restarted_receiver_keeps_recorded_frames_out() {
    let keys = KeyRing::new(1, key(1));
    let mut sealer = Sealer::new(CONTROLLER, 10);
    let mut opener = Opener::new(ME);
    let recorded = send(&mut sealer, &keys);
    assert_eq!(reason(opener.open(&keys, &recorded)), "accepted");

    let journal: Vec<_> = opener.positions().collect();
    let mut opener = Opener::new(ME);
    for (from, boot, sequence) in journal {
        opener.resume(from, boot, sequence);
    }
    assert_eq!(reason(opener.open(&keys, &recorded)), "replayed");
    let next = send(&mut sealer, &keys);
    assert_eq!(reason(opener.open(&keys, &next)), "accepted");
    opener.resume(CONTROLLER, 10, 0);
    assert_eq!(
        reason(opener.open(&keys, &next)),
        "replayed",
        "never backwards"
    );
}

#[test]
fn a_message_for_another_is_not_taken_and_moves_no_window() {
    let keys = KeyRing::new(1, key(1));
    let frame = send(&mut Sealer::new(CONTROLLER, 1), &keys);
    let mut other = Opener::new(ME + 1);
    assert_eq!(reason(other.open(&keys, &frame)), "wrong_addressee");
    assert_eq!(other.positions().count(), 0);
    assert_eq!(reason(Opener::new(ME).open(&keys, &frame)), "accepted");
}

#[test]
fn an_authentic_message_that_is_not_understood_is_still_used_up() {
    // The frame of a newer version: authentic, so its number counts, and a copy is a replay.
    let mut newer = Message::new(Command::Query, 1, ME)
        .emit(samples::KEY_ID, DEFAULT_MTU)
        .unwrap();
    newer[1] = 0x1e;
    newer.truncate(HEADER_LEN);
    let newer = samples::sign(newer);

    let mut opener = Opener::new(ME);
    let keys = samples::keys();
    assert_eq!(reason(opener.open_payload(&keys, &newer)), "malformed");
    assert_eq!(reason(opener.open_payload(&keys, &newer)), "replayed");
}

#[test]
fn a_number_is_used_up_only_by_what_can_be_sent() {
    let keys = KeyRing::new(1, key(1));
    let mut sealer = Sealer::new(ME, 1);
    let mut bad = Message::new(Command::Flush, 1, ME);
    assert!(sealer.seal_payload(&keys, &mut bad, DEFAULT_MTU).is_err());
    assert_eq!(sealer.next_sequence(), Some(0));
    let mut good = Message::new(Command::Query, 1, ME);
    sealer.seal_payload(&keys, &mut good, DEFAULT_MTU).unwrap();
    assert_eq!((good.from, good.boot, good.sequence), (ME, 1, 0));
    assert_eq!(sealer.next_sequence(), Some(1));
}
