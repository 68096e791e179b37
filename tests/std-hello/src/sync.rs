// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads, and what they wait for each other with.

use crate::{Check, ensure};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// Floating-point values live in vector registers across system calls.
pub(crate) fn vector_state() -> Check {
    let values: [f64; 24] = std::array::from_fn(|index| f64::from(u8::try_from(index).unwrap_or(0)) + 0.5);
    let mut sums = values;
    for _ in 0..100 {
        for sum in &mut sums {
            *sum += 1.0;
        }
        thread::yield_now();
    }
    ensure!(sums.iter().zip(values).all(|(sum, value)| (sum - value - 100.0).abs() < 1e-9));
    Ok(())
}

pub(crate) fn threads() -> Check {
    let handles: Vec<_> = (0..8_u64).map(|index| thread::spawn(move || index * index)).collect();
    let squares: Vec<_> = handles.into_iter().filter_map(|handle| handle.join().ok()).collect();
    ensure!(squares == [0, 1, 4, 9, 16, 25, 36, 49]);
    let mut local = 0;
    thread::scope(|scope| {
        scope.spawn(|| local = 7);
    });
    ensure!(local == 7);
    Ok(())
}

/// More threads than there can be at once, one after the other and in crowds.
pub(crate) fn many_threads() -> Check {
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..10 {
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                let count = Arc::clone(&count);
                thread::spawn(move || count.fetch_add(1, Ordering::Relaxed))
            })
            .collect();
        for thread in crowd {
            thread.join().map_err(|_| "a thread panicked")?;
        }
    }
    ensure!(count.load(Ordering::Relaxed) == 200);
    Ok(())
}

pub(crate) fn mutex() -> Check {
    let total = Arc::new(Mutex::new(0_u64));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..2000 {
                    if let Ok(mut total) = total.lock() {
                        *total += 1;
                        if round % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                }
            });
        }
    });
    ensure!(total.lock().is_ok_and(|total| *total == 8000));
    Ok(())
}

pub(crate) fn condvar() -> Check {
    const ROUNDS: u32 = 200;
    let turn = (Mutex::new(0_u32), Condvar::new());
    let play = |me: u32| -> bool {
        for _ in 0..ROUNDS {
            let Ok(guard) = turn.0.lock() else { return false };
            let Ok(mut guard) = turn.1.wait_while(guard, |turn| *turn % 2 != me) else { return false };
            *guard += 1;
            turn.1.notify_all();
        }
        true
    };
    let both = thread::scope(|scope| {
        let other = scope.spawn(|| play(1));
        play(0) && other.join().unwrap_or(false)
    });
    ensure!(both);
    ensure!(turn.0.lock().is_ok_and(|turn| *turn == 2 * ROUNDS));
    Ok(())
}

pub(crate) fn channel() -> Check {
    let (sender, receiver) = mpsc::sync_channel(4);
    let producer = thread::spawn(move || (0..1000_u32).all(|value| sender.send(value).is_ok()));
    let sum: u32 = receiver.iter().sum();
    ensure!(producer.join().unwrap_or(false));
    ensure!(sum == 499_500);
    Ok(())
}

pub(crate) fn park() -> Check {
    let (sender, receiver) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        thread::park();
        sender.send(()).is_ok()
    });
    thread::sleep(Duration::from_millis(5));
    ensure!(receiver.try_recv().is_err());
    sleeper.thread().unpark();
    ensure!(sleeper.join().unwrap_or(false));
    thread::park_timeout(Duration::from_millis(1));
    Ok(())
}

pub(crate) fn barrier() -> Check {
    let barrier = Barrier::new(5);
    let before = AtomicU64::new(0);
    let seen = thread::scope(|scope| {
        let others: Vec<_> = (0..5)
            .map(|_| {
                scope.spawn(|| {
                    before.fetch_add(1, Ordering::SeqCst);
                    barrier.wait();
                    before.load(Ordering::SeqCst)
                })
            })
            .collect();
        others.into_iter().map(|other| other.join().unwrap_or(0)).collect::<Vec<_>>()
    });
    ensure!(seen == [5; 5]);
    Ok(())
}

thread_local! {
    static MINE: Cell<u32> = const { Cell::new(1) };
}

pub(crate) fn thread_local() -> Check {
    MINE.set(2);
    let other = thread::spawn(|| MINE.replace(3)).join().map_err(|_| "a thread panicked")?;
    ensure!(other == 1);
    ensure!(MINE.get() == 2);
    Ok(())
}
