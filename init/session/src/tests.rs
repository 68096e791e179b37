// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generated sides against each other, and the server side against messages that nobody's client would send.

use crate::testing::Loopback;
use crate::wire::{Decode, Decoder, Encoder};
use crate::{Attach, Bytes, CHUNK, Cap, Error, Object, Rights, Text};
use cloister_abi::utcb::{Header, ITEMS, Item, WORDS};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::string::String;
use std::vec::Vec;

crate::interface! {
    /// A bit of everything.
    pub trait Probe, client ProbeClient, server ProbeServer {
        /// Text and bytes.
        1 => fn echo(text: &str, data: &[u8], number: u32, flag: bool) -> Bytes<CHUNK>;
        /// Capabilities.
        2 => fn caps(handed: Cap, shown: Object, other: Object) -> Option<Cap>;
        /// A structure.
        3 => fn attach(place: Attach) -> u64;
        /// An error with numbers.
        4 => fn fail(needed: u64) -> ();
    }
}

#[derive(Default)]
struct Server {
    calls: u32,
    shown: Vec<Object>,
}

impl Probe for Server {
    fn echo(&mut self, text: &str, data: &[u8], number: u32, flag: bool) -> Result<Bytes<CHUNK>, Error> {
        self.calls += 1;
        let mut reply = Bytes::new();
        reply.extend_from_slice(text.as_bytes()).map_err(|_| Error::TooLong)?;
        reply.extend_from_slice(data).map_err(|_| Error::TooLong)?;
        reply.extend_from_slice(&number.to_le_bytes()).map_err(|_| Error::TooLong)?;
        reply.push(u8::from(flag)).map_err(|_| Error::TooLong)?;
        Ok(reply)
    }
    fn caps(&mut self, handed: Cap, shown: Object, other: Object) -> Result<Option<Cap>, Error> {
        self.calls += 1;
        self.shown = [shown, other].to_vec();
        Ok((handed.selector != 0).then_some(handed))
    }
    fn attach(&mut self, place: Attach) -> Result<u64, Error> {
        self.calls += 1;
        place.address.ok_or(Error::Invalid)
    }
    fn fail(&mut self, needed: u64) -> Result<(), Error> {
        self.calls += 1;
        Err(Error::OutOfRam { needed, available: 7 })
    }
}

fn with<R>(run: impl FnOnce(&Loopback<&mut dyn FnMut(&mut Decoder<'_>, &mut Encoder<'_>)>) -> R) -> (R, Server) {
    let mut server = Server::default();
    let mut serve = |request: &mut Decoder<'_>, reply: &mut Encoder<'_>| {
        ProbeServer::dispatch(&mut server, request, reply);
    };
    let serve: &mut dyn FnMut(&mut Decoder<'_>, &mut Encoder<'_>) = &mut serve;
    let outcome = run(&Loopback::new(serve));
    (outcome, server)
}

#[test]
fn arguments_and_results_arrive() {
    let (answer, server) = with(|link| ProbeClient(link).echo("grüße", &[1, 2, 3], 0x0102_0304, true));
    assert_eq!(answer.expect("echo").as_slice(), ["grüße".as_bytes(), &[1, 2, 3, 4, 3, 2, 1, 1]].concat());
    assert_eq!(server.calls, 1);
    let place = Attach { offset: 1, size: 2, address: Some(3), rights: Rights::RX };
    assert_eq!(with(|link| ProbeClient(link).attach(place)).0, Ok(3));
}

#[test]
fn errors_keep_their_numbers() {
    let expected = Error::OutOfRam { needed: 12, available: 7 };
    assert_eq!(with(|link| ProbeClient(link).fail(12)).0, Err(expected));
}

#[test]
fn objects_come_home() {
    let (answer, server) = with(|link| {
        link.own(20, 0xabcd);
        ProbeClient(link).caps(Cap::new(5), Cap::new(20).object(), Cap::new(21).object())
    });
    assert_eq!(answer, Ok(Some(Cap::new(5))));
    assert_eq!(server.shown, [Object::Own(0xabcd), Object::Cap(Cap::new(21))]);
    assert_eq!(with(|link| ProbeClient(link).caps(Cap::new(0), Object::Nothing, Object::Nothing)).0, Ok(None));
}

#[test]
fn too_long_is_the_senders_error_and_never_sent() {
    let long = [0; CHUNK + 1000];
    let (answer, server) = with(|link| ProbeClient(link).echo("", &long, 0, false));
    assert_eq!((answer, server.calls), (Err(Error::TooLong), 0));
}

fn raw(words: &[u64], items: &[Item]) -> (Result<u64, Error>, Server) {
    with(|link| link.raw(words, items, crate::wire_reply::<u64>))
}

#[test]
fn malformed_messages_do_not_reach_the_server() {
    let item = Item { value: 9, attr: Item::DELEGATE };
    let malformed: [(&str, &[u64], &[Item]); 9] = [
        ("empty", &[], &[]),
        ("argument missing", &[4], &[]),
        ("a word too many", &[4, 1, 2], &[]),
        ("a capability too many", &[4, 1], &[item]),
        ("length beyond the message", &[1, 9, 0, 0, 0, 0], &[]),
        ("length wraps", &[1, u64::MAX, 0, 0, 0, 0], &[]),
        ("not UTF-8", &[1, 1, 0xff, 0, 0, 0], &[]),
        ("not a bool", &[1, 0, 0, 0, 2], &[]),
        ("unknown right", &[3, 0, 0, 0, 8], &[]),
    ];
    for (what, words, items) in malformed {
        let (answer, server) = raw(words, items);
        assert_eq!((answer, server.calls), (Err(Error::Malformed), 0), "{what}");
    }
    assert_eq!(raw(&[99], &[]).0, Err(Error::NoSuchOperation));
    assert_eq!(raw(&[2], &[]).0, Err(Error::Malformed));
}

#[test]
fn impossible_headers_are_refused() {
    let (words, items) = ([0; WORDS], [Item::default(); ITEMS]);
    assert!(Decoder::new(&words, &items, Header::new(WORDS, ITEMS)).is_some());
    assert!(Decoder::new(&words, &items, Header::new(WORDS + 1, 0)).is_none());
    assert!(Decoder::new(&words, &items, Header::new(0, ITEMS + 1)).is_none());
    assert!(Decoder::new(&words[..3], &items, Header::new(4, 0)).is_none());
}

#[test]
fn text_longer_than_its_bound_is_malformed() {
    let (mut words, mut items) = ([0; WORDS], [Item::default(); ITEMS]);
    let mut message = Encoder::new(&mut words, &mut items);
    message.bytes(b"12345").expect("room");
    let header = message.header();
    let decode = || Decoder::new(&words, &items, header).expect("header");
    assert_eq!(Text::<4>::decode(&mut decode()), Err(Error::Malformed));
    assert_eq!(Text::<5>::decode(&mut decode()).as_deref(), Ok("12345"));
}

#[test]
fn every_error_survives_the_wire() {
    for code in 0..40 {
        let error = Error::from_raw([code, 5, 6]);
        assert_eq!(Error::from_raw(error.to_raw()), error);
    }
}

proptest! {
    #[test]
    fn any_message_gets_an_answer(
        words in prop::collection::vec(prop::num::u64::ANY, 0..WORDS),
        operation in 0_u64..6,
        items in prop::collection::vec((any::<u64>(), 0_u64..4), 0..ITEMS),
    ) {
        let mut words = words;
        if let Some(first) = words.first_mut() {
            *first = operation;
        }
        let items: Vec<Item> = items.into_iter().map(|(value, attr)| Item { value, attr }).collect();
        let answered = with(|link| link.raw(&words, &items, |reply| reply.word())).0;
        prop_assert!(answered.is_ok());
    }

    #[test]
    fn text_and_bytes_survive(text in ".{0,200}", data in prop::collection::vec(any::<u8>(), 0..1000)) {
        let (answer, _) = with(|link| ProbeClient(link).echo(&text, &data, 0, false));
        let mut expected = String::into_bytes(text);
        expected.extend_from_slice(&data);
        expected.extend_from_slice(&[0; 5]);
        prop_assert_eq!(answer.expect("echo").to_vec(), expected);
    }
}
