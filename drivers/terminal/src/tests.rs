// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person sees.

use crate::{OUTPUT, Terminal};
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use std::string::String;
use std::vec::Vec;

fn shown(terminal: &mut Terminal) -> String {
    String::from_utf8_lossy(&terminal.take_output(usize::MAX).collect::<Vec<_>>()).into_owned()
}

fn type_in(terminal: &mut Terminal, keys: &[u8]) {
    for key in keys {
        terminal.typed(*key);
    }
}

#[test]
fn one_stream_goes_through_unchanged() {
    let mut terminal = Terminal::new(50);
    let only = terminal.open("linux");
    assert_eq!(terminal.write(only, b"\x1b[2Jlogin: ", 0), 11);
    assert_eq!(shown(&mut terminal), "\x1b[2Jlogin: ");
    type_in(&mut terminal, b"root\r\x01\x012\x012");
    assert_eq!(terminal.read(only, 100), b"root\r\x012\x012");
}

#[test]
fn two_streams_have_labels_and_whole_lines() {
    let mut terminal = Terminal::new(50);
    let (one, two) = (terminal.open("a"), terminal.open("b"));
    terminal.write(one, b"hel", 0);
    terminal.write(two, b"other\r\n", 1);
    terminal.write(one, b"lo\r\n", 2);
    assert_eq!(shown(&mut terminal), "[b] other\r\n[a] hello\r\n");
}

#[test]
fn a_prompt_is_shown_after_a_while_and_continued() {
    let mut terminal = Terminal::new(50);
    let (one, two) = (terminal.open("a"), terminal.open("b"));
    terminal.write(one, b"/ # ", 10);
    assert_eq!(terminal.show_unfinished(30), Some(60));
    assert_eq!(shown(&mut terminal), "");
    assert_eq!(terminal.show_unfinished(60), None);
    assert_eq!(shown(&mut terminal), "[a] / # ");
    terminal.write(one, b"ls", 61);
    assert_eq!(shown(&mut terminal), "ls");
    terminal.write(two, b"x\n", 62);
    assert_eq!(shown(&mut terminal), "\r\n[b] x\n");
    terminal.write(one, b"\nfile\n", 63);
    assert_eq!(shown(&mut terminal), "[a] \n[a] file\n");
}

#[test]
fn the_focus_moves() {
    let mut terminal = Terminal::new(50);
    let (one, two) = (terminal.open("a"), terminal.open("b"));
    type_in(&mut terminal, b"x\x012y\x017z\x01q\x01\x01");
    assert_eq!(terminal.focus(), Some(two));
    assert_eq!(shown(&mut terminal), "[terminal] 1:a 2:b*\r\n[terminal] 1:a 2:b*\r\n");
    assert_eq!((terminal.read(one, 9), terminal.read(two, 9)), (b"x".to_vec(), b"yz\x01".to_vec()));
    terminal.close(two);
    assert_eq!(terminal.focus(), Some(one));
}

#[test]
fn moving_the_focus_shows_the_prompt_again() {
    let mut terminal = Terminal::new(50);
    let (one, two) = (terminal.open("a"), terminal.open("b"));
    terminal.write(one, b"/ # ", 0);
    terminal.write(two, b"$ ", 0);
    terminal.show_unfinished(50);
    assert_eq!(shown(&mut terminal), "[b] $ \r\n[a] / # ");
    type_in(&mut terminal, b"\x012");
    assert_eq!(shown(&mut terminal), "\r\n[terminal] 1:a 2:b*\r\n[b] $ ");
    terminal.write(two, b"ls\n", 60);
    type_in(&mut terminal, b"\x012");
    assert_eq!(shown(&mut terminal), "ls\n[terminal] 1:a 2:b*\r\n");
}

#[test]
fn closing_shows_what_was_left() {
    let mut terminal = Terminal::new(50);
    let (one, two) = (terminal.open("a"), terminal.open("b"));
    terminal.write(two, b"bye", 0);
    terminal.close(two);
    assert_eq!(shown(&mut terminal), "[b] bye\r\n");
    terminal.write(one, b"on", 0);
    assert_eq!(shown(&mut terminal), "on");
    assert_eq!(terminal.write(two, b"stale", 0), 5);
}

#[test]
fn nobody_can_fill_memory() {
    let mut terminal = Terminal::new(50);
    let one = terminal.open("a");
    let much = [b'x'; OUTPUT + 100];
    assert_eq!(terminal.write(one, &much, 0), OUTPUT);
    assert_eq!(terminal.write(one, &much, 0), 0);
    type_in(&mut terminal, &much);
    assert!(terminal.read(one, usize::MAX).len() <= 4096);
}

proptest! {
    #[test]
    fn lines_stay_whole(writes in prop::collection::vec((any::<bool>(), 0_usize..4, any::<bool>()), 0..60)) {
        let mut terminal = Terminal::new(5);
        let (one, two) = (terminal.open("1"), terminal.open("2"));
        let mut expected = [String::new(), String::new()];
        for (time, (second, letters, end)) in (0_u64..).zip(writes) {
            let (id, letter) = if second { (two, 'b') } else { (one, 'a') };
            let mut text: String = std::iter::repeat_n(letter, letters).collect();
            if end {
                text.push('\n');
            }
            terminal.write(id, text.as_bytes(), time);
            expected[usize::from(second)].push_str(&text);
            terminal.show_unfinished(time);
        }
        terminal.show_unfinished(u64::MAX);
        let seen = shown(&mut terminal);
        for line in seen.lines() {
            let content = line.trim_start_matches("[1] ").trim_start_matches("[2] ");
            prop_assert!(content.chars().all(|c| c == 'a') || content.chars().all(|c| c == 'b'), "{seen}");
        }
        for (index, letter) in ['a', 'b'].into_iter().enumerate() {
            let count = |text: &str| text.chars().filter(|c| *c == letter).count();
            prop_assert_eq!(count(&seen), count(&expected[index]));
        }
    }
}
