// SPDX-License-Identifier: MIT OR Apache-2.0
//! Delegation between spaces, and its reverse. There is no record of who got what from whom: whoever delegates memory knows it (core's
//! region maps), and a capability can only be taken back from the space it was put into.

use super::{Answer, lookup};
use crate::arch::cpu::{self, feature};
use crate::arch::iommu;
use crate::arch::paging::{KERNEL_FRAME, attributes, restrict};
use crate::memory::is_own;
use crate::object::space::{Content, refused_status};
use crate::object::{Ec, Header, Space};
use cloister_abi::cap::{Access, Perms, SELECTORS};
use cloister_abi::hypercall as abi;
use cloister_abi::status::Status;
use cloister_abi::{PAGE_BITS, USER_END};
use cloister_mechanism::capability::Table;

/// Most units of capabilities or ports that one call handles, as log2.
const SMALL_ORDER: u32 = 9;
/// Largest range of memory that one call handles, as log2 of pages: 256 GiB in pages of 1 GiB.
const MEMORY_ORDER: u32 = 26;

pub(super) fn delegate(ec: &Ec, call: &abi::Delegate) -> Answer {
    let src = lookup::<Space>(ec, call.src, Perms::SPACE_TAKE)?;
    let dst = lookup::<Space>(ec, call.dst, Perms::SPACE_GRANT)?;
    if call.order > MEMORY_ORDER || (call.src_base | call.dst_base) & ((1 << call.order) - 1) != 0 {
        return Err(Status::BadParameter);
    }
    match (&src.content, &dst.content) {
        (Content::Objects(from), Content::Objects(to)) => capabilities(from, (to, dst), call),
        (Content::MachineMemory | Content::Host(_), Content::Host(_) | Content::Guest(_) | Content::Dma(_)) => {
            memory(src, dst, call)
        }
        (Content::MachinePorts, Content::Ports(_)) => {
            if call.src_base != call.dst_base || call.rights != 1 {
                return Err(Status::BadParameter);
            }
            ports(dst, call.dst_base, call.order, true)
        }
        _ => Err(Status::BadCapability),
    }
}

/// Delegates capabilities into a table whose frames are that space's.
fn capabilities(src: &Table<Header>, (dst, frames): (&Table<Header>, &Space), call: &abi::Delegate) -> Answer {
    let rights = u8::try_from(call.rights).ok().and_then(Perms::from_bits).ok_or(Status::BadParameter)?;
    selectors(call.src_base, call.order)?;
    for to in selectors(call.dst_base, call.order)? {
        let from = call.src_base + (to - call.dst_base);
        let done = src.delegate(from, dst, frames, to, rights.bits()).map_err(refused_status)?;
        if !done && call.order == 0 {
            return Err(Status::BadCapability);
        }
    }
    Ok((0, 0))
}

/// The selectors of a range.
fn selectors(base: u64, order: u32) -> Result<core::ops::Range<u64>, Status> {
    let count = 1u64 << order;
    if order > SMALL_ORDER || base >= u64::from(SELECTORS) || base + count > u64::from(SELECTORS) {
        return Err(Status::BadParameter);
    }
    Ok(base..base + count)
}

fn memory(src: &Space, dst: &Space, call: &abi::Delegate) -> Answer {
    let access = u8::try_from(call.rights).ok().and_then(Access::from_bits).ok_or(Status::BadParameter)?;
    let host = matches!(dst.content, Content::Host(_));
    let all = bits(dst, access).ok_or(Status::BadParameter)?;
    let size = 1u64 << (call.order + PAGE_BITS);
    let (from, to) = (bytes(call.src_base)?, bytes(call.dst_base)?);
    let guest = matches!(dst.content, Content::Guest(_));
    if call.order >= 18 && !(cpu::has(feature::PAGE_1G) && (!guest || crate::arch::guest::has_huge_pages())) {
        return Err(Status::BadFeature);
    }
    if host && to + size > USER_END {
        return Err(Status::BadParameter);
    }
    if matches!(dst.content, Content::Dma(_)) && iommu::limits().is_none_or(|most| call.order > most.largest_order) {
        return Err(Status::BadFeature);
    }
    match &src.content {
        Content::MachineMemory => {
            if is_own(from, from + size) {
                return Err(Status::BadParameter);
            }
            dst.map(to, call.order, |offset| Some((from + offset, all)))?;
        }
        _ => {
            let level = call.order / 9;
            dst.map_from(src, (to, from), call.order, |leaf| {
                let allowed = bits(dst, restrict(access, leaf.bits))?;
                (leaf.level >= level && leaf.bits & KERNEL_FRAME == 0).then_some((leaf.address, allowed))
            })?;
        }
    }
    Ok((0, 0))
}

/// Attribute bits for memory of these rights in a space; `None` for rights that no mapping there may have.
fn bits(space: &Space, access: Access) -> Option<u64> {
    match &space.content {
        // What a device reads and writes is always cached as the processor's own, and never executed.
        Content::Dma(tables) if !access.contains(Access::EXEC) => {
            tables.attributes(access.contains(Access::READ), access.contains(Access::WRITE))
        }
        Content::Dma(_) => None,
        content => attributes(access, matches!(content, Content::Guest(_))),
    }
}

/// Address of a page number, if it is below 2^48 (the page number of a range's end is then far from wrapping).
fn bytes(page: u64) -> Result<u64, Status> {
    if page >> (48 - PAGE_BITS) != 0 {
        return Err(Status::BadParameter);
    }
    Ok(page << PAGE_BITS)
}

fn ports(space: &Space, base: u64, order: u32, allowed: bool) -> Answer {
    let first = u16::try_from(base).map_err(|_| Status::BadParameter)?;
    if order > SMALL_ORDER {
        return Err(Status::BadParameter);
    }
    // An aligned range of a power of two that starts below 2^16 ends there too.
    let range = first..=first | ((1 << order) - 1);
    let (own, count) = crate::arch::serial::ports();
    if allowed && range.clone().any(|port| port.wrapping_sub(own) < count) {
        return Err(Status::BadDevice);
    }
    space.set_ports(range, allowed)?;
    Ok((0, 0))
}

pub(super) fn revoke(ec: &Ec, call: &abi::Revoke) -> Answer {
    let space = lookup::<Space>(ec, call.space, Perms::SPACE_GRANT)?;
    if call.order > MEMORY_ORDER || call.base & ((1 << call.order) - 1) != 0 {
        return Err(Status::BadParameter);
    }
    match &space.content {
        Content::Objects(table) => selectors(call.base, call.order)?.for_each(|selector| table.remove(selector)),
        Content::Host(_) | Content::Guest(_) | Content::Dma(_) => space.unmap(bytes(call.base)?, call.order)?,
        Content::Ports(_) => return ports(space, call.base, call.order, false),
        Content::MachineMemory | Content::MachinePorts => return Err(Status::BadCapability),
    }
    Ok((0, 0))
}

pub(super) fn drop_selectors(ec: &Ec, call: &abi::Drop) -> Answer {
    let end = call.base.checked_add(call.count).filter(|end| *end <= SELECTORS && call.count <= 512);
    for selector in call.base..end.ok_or(Status::BadParameter)? {
        ec.objects.table()?.remove(selector.into());
    }
    Ok((0, 0))
}
