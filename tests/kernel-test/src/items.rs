// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities in messages: delegated, translated, and what keeps them from arriving.

use crate::harness::{Outcome, Test};
use crate::make::{EMPTY, give, semaphore, silent, try_down, up};
use crate::{check, equal, refused};
use cloister_abi::cap::{Perms, SELECTORS, Selector};
use cloister_abi::hip::ROOT_PD;
use cloister_abi::hypercall::{Destroy, Drop, MoveBudget, PdInfo, SmUp};
use cloister_abi::status::Status;
use cloister_abi::utcb::{Header, ITEMS, Item};
use cloister_bare::domain::Domain;
use cloister_bare::kernel::{call, ipc, message, selectors};
use cloister_bare::thread::{Context, Options, destroy, server};
use core::sync::atomic::{AtomicU64, Ordering};

pub(crate) static TESTS: [Test; 10] = [
    ("item-delegated", delegated),
    ("item-permissions", permissions),
    ("item-without-window", no_window),
    ("item-window-too-small", small_window),
    ("item-window-at-the-end", window_at_end),
    ("item-window-wraps", window_wraps),
    ("item-nothing-sent", nothing),
    ("item-translated", translated),
    ("item-of-a-reply", of_reply),
    ("item-receiver-cannot-pay", cannot_pay),
];

/// What the server saw: value and attributes of the items.
static SEEN: [AtomicU64; 2 * ITEMS] = [const { AtomicU64::new(0) }; 2 * ITEMS];

fn look(_: u64, header: Header) -> Header {
    for index in 0..header.items() {
        let item = message().item(index);
        SEEN[2 * index].store(item.value, Ordering::Relaxed);
        SEEN[2 * index + 1].store(item.attr, Ordering::Relaxed);
    }
    Header::new(0, 0)
}

fn seen(index: usize) -> Item {
    Item { value: SEEN[2 * index].load(Ordering::Relaxed), attr: SEEN[2 * index + 1].load(Ordering::Relaxed) }
}

/// A server that looks at items, with a receive window of so many selectors.
fn receiver(count: u32) -> Result<(Context, Selector, Selector), Status> {
    let context = server(look, &Options::default())?;
    let window = selectors(8);
    context.message().set_window(window, count);
    let portal = context.portal(9)?;
    Ok((context, portal, window))
}

fn delegated() -> Outcome {
    let (context, portal, window) = receiver(8)?;
    let sm = semaphore(0)?;
    for index in 0..ITEMS {
        message().set_item(index, Item::delegate(sm, Perms::ALL));
    }
    ipc(portal, 0, ITEMS)?;
    for (index, sel) in (window..window + 8).enumerate() {
        equal!(seen(index).value, u64::from(sel));
        equal!(seen(index).kind(), Item::DELEGATE);
        up(sel)?;
    }
    for _ in 0..ITEMS {
        try_down(sm)?;
    }
    destroy(sm);
    context.destroy();
    Ok(())
}

fn permissions() -> Outcome {
    let (context, portal, window) = receiver(8)?;
    let sm = semaphore(0)?;
    message().set_item(0, Item::delegate(sm, Perms::SM_UP));
    ipc(portal, 0, 1)?;
    up(window)?;
    equal!(try_down(window), Err(Status::BadCapability));
    refused!(BadCapability, Destroy { sel: window });
    destroy(sm);
    context.destroy();
    Ok(())
}

fn no_window() -> Outcome {
    let (context, portal, window) = receiver(0)?;
    let sm = semaphore(0)?;
    message().set_item(0, Item::delegate(sm, Perms::ALL));
    ipc(portal, 0, 1)?;
    equal!(seen(0).kind(), Item::NOTHING);
    refused!(BadCapability, SmUp { sm: window });
    destroy(sm);
    context.destroy();
    Ok(())
}

fn small_window() -> Outcome {
    let (context, portal, window) = receiver(1)?;
    let sm = semaphore(0)?;
    message().set_item(0, Item::delegate(sm, Perms::ALL));
    message().set_item(1, Item::delegate(sm, Perms::ALL));
    ipc(portal, 0, 2)?;
    equal!(seen(0).value, u64::from(window));
    equal!(seen(1).kind(), Item::NOTHING);
    refused!(BadCapability, SmUp { sm: window + 1 });
    destroy(sm);
    context.destroy();
    Ok(())
}

/// A window that begins inside the object space and ends beyond it.
fn window_at_end() -> Outcome {
    let (context, portal, _) = receiver(0)?;
    context.message().set_window(SELECTORS - 1, 8);
    let sm = semaphore(0)?;
    message().set_item(0, Item::delegate(sm, Perms::ALL));
    message().set_item(1, Item::delegate(sm, Perms::ALL));
    // The receiver's own mistake: the message is refused, or comes without the capability.
    check!(matches!(ipc(portal, 0, 2), Ok(_) | Err(Status::BadParameter)));
    context.message().set_window(0, 0);
    ipc(portal, 0, 0)?;
    call(&Drop { base: SELECTORS - 1, count: 1 })?;
    destroy(sm);
    context.destroy();
    Ok(())
}

fn window_wraps() -> Outcome {
    let (context, portal, _) = receiver(0)?;
    let sm = semaphore(0)?;
    for (base, count) in [(u32::MAX, 8), (u32::MAX - 1, u32::MAX), (SELECTORS, 8)] {
        context.message().set_window(base, count);
        for index in 0..4 {
            message().set_item(index, Item::delegate(sm, Perms::ALL));
        }
        check!(matches!(ipc(portal, 0, 4), Ok(_) | Err(Status::BadParameter)));
        refused!(BadCapability, SmUp { sm: 0 });
    }
    destroy(sm);
    context.destroy();
    Ok(())
}

fn nothing() -> Outcome {
    let (context, portal, window) = receiver(8)?;
    let dead = semaphore(0)?;
    destroy(dead);
    let cases = [
        Item::delegate(EMPTY, Perms::ALL),
        Item::delegate(dead, Perms::ALL),
        Item { value: 1 << 32 | 5, attr: Item::DELEGATE | 0x1f00 },
        Item { value: 5, attr: Item::NOTHING },
        Item { value: 5, attr: 3 },
        Item { value: 5, attr: 0xff },
        Item::delegate(u32::MAX, Perms::ALL),
    ];
    for (index, item) in cases.into_iter().enumerate() {
        message().set_item(index, item);
    }
    ipc(portal, 0, cases.len())?;
    for index in 0..cases.len() {
        equal!(seen(index).kind(), Item::NOTHING);
    }
    refused!(BadCapability, SmUp { sm: window });
    context.destroy();
    Ok(())
}

/// The receiver of a portal of its own gets the identity; another domain's portal is delegated.
fn translated() -> Outcome {
    let (context, portal, window) = receiver(8)?;
    let own = context.portal(0xfeed)?;
    message().set_item(0, Item::translate(own, Perms::ALL));
    ipc(portal, 0, 1)?;
    equal!(seen(0), Item { value: 0xfeed, attr: Item::TRANSLATE });
    let sm = semaphore(0)?;
    let domain = Domain::with_image(0x10_0000)?;
    let foreign = domain.server(silent)?.portal(0xdead)?;
    message().set_item(0, Item::translate(foreign, Perms::ALL));
    message().set_item(1, Item::translate(sm, Perms::SM_UP));
    ipc(portal, 0, 2)?;
    equal!((seen(0).value, seen(0).kind()), (u64::from(window), Item::DELEGATE));
    equal!((seen(1).value, seen(1).kind()), (u64::from(window + 1), Item::DELEGATE));
    up(window + 1)?;
    destroy(domain.pd);
    destroy(sm);
    context.destroy();
    Ok(())
}

static SENT: AtomicU64 = AtomicU64::new(0);

fn reply_with_item(_: u64, _: Header) -> Header {
    let sel = u32::try_from(SENT.load(Ordering::Relaxed)).unwrap_or_default();
    message().set_item(0, Item::delegate(sel, Perms::SM_UP));
    Header::new(0, 1)
}

/// A capability comes back out of another domain, into the caller's window.
fn of_reply() -> Outcome {
    let sm = semaphore(0)?;
    let domain = Domain::with_image(0x10_0000)?;
    give(domain.objects, sm, 40, Perms::ALL)?;
    SENT.store(40, Ordering::Relaxed);
    let server = domain.server(reply_with_item)?;
    let portal = server.portal(0)?;
    let window = selectors(8);
    message().set_window(window, 8);
    equal!(ipc(portal, 0, 0)?, Header::new(0, 1));
    equal!(message().item(0).value, u64::from(window));
    up(window)?;
    equal!(try_down(sm)?, 1);
    message().set_window(0, 0);
    destroy(domain.pd);
    destroy(sm);
    Ok(())
}

/// First selector of a window for which there is no table yet.
const FAR: Selector = 100 * 512;

fn open_window(_: u64, _: Header) -> Header {
    message().set_window(FAR, 8);
    Header::new(0, 0)
}

/// The table that the capability needs is the receiver's to pay; the sender is told that it cannot.
fn cannot_pay() -> Outcome {
    let sm = semaphore(0)?;
    let domain = Domain::with_image(0x10_0000)?;
    let portal = domain.server(open_window)?.portal(0)?;
    ipc(portal, 0, 0)?;
    let (limit, used) = call(&PdInfo { pd: domain.pd })?;
    call(&MoveBudget { from: domain.pd, to: ROOT_PD, bytes: limit - used })?;
    message().set_item(0, Item::delegate(sm, Perms::ALL));
    equal!(ipc(portal, 0, 1), Err(Status::PeerOutOfBudget));
    call(&MoveBudget { from: ROOT_PD, to: domain.pd, bytes: 0x2000 })?;
    ipc(portal, 0, 1)?;
    destroy(domain.pd);
    destroy(sm);
    Ok(())
}
