// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory: libc's heap, and what it asks of the personality.

use crate::{Check, ensure};
use std::collections::HashMap;
use std::thread;

pub(crate) fn hash_map() -> Check {
    let map: HashMap<u32, String> = (0..1000).map(|key| (key, key.to_string())).collect();
    ensure!(map.len() == 1000);
    ensure!(map.iter().all(|(key, value)| value.parse() == Ok(*key)));
    Ok(())
}

pub(crate) fn big_allocation() -> Check {
    const SIZE: usize = 6 << 20;
    for round in 0..3_u8 {
        let mut bytes = vec![0_u8; SIZE];
        ensure!(bytes.iter().step_by(4096).all(|byte| *byte == 0));
        bytes.iter_mut().step_by(4096).for_each(|byte| *byte = round + 1);
        ensure!(bytes.iter().step_by(4096).all(|byte| *byte == round + 1));
    }
    let absurd = Vec::<u8>::new().try_reserve_exact(1 << 46);
    ensure!(absurd.is_err());
    // More than the quota: an error, and the program goes on.
    let more = Vec::<u8>::new().try_reserve_exact(1 << 30);
    ensure!(more.is_err() || !cloister_linux::is_cloister());
    Ok(())
}

pub(crate) fn growing_vector() -> Check {
    let mut vector = Vec::new();
    for value in 0..300_000_u64 {
        vector.push(value);
    }
    ensure!(vector.iter().zip(0..).all(|(value, expected)| *value == expected));
    vector.truncate(10);
    vector.shrink_to_fit();
    ensure!(vector == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    Ok(())
}

pub(crate) fn threads_allocate() -> Check {
    let workers: Vec<_> = (0..4_usize)
        .map(|seed| {
            thread::spawn(move || {
                let mut kept: Vec<Vec<usize>> = Vec::new();
                for round in 0..300 {
                    let size = 1 + (seed * 7919 + round * 104_729) % 3000;
                    kept.push(vec![round; size]);
                    if kept.len() > 20 {
                        kept.swap_remove(round % 20);
                    }
                }
                kept.iter().all(|vector| vector.iter().all(|value| *value == vector[0]))
            })
        })
        .collect();
    for worker in workers {
        ensure!(worker.join().unwrap_or(false));
    }
    Ok(())
}
