// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices: what they may reach, and what they tried beyond.

use super::control::Machine;
use super::{Answer, lookup};
use crate::arch::iommu;
use crate::object::space::Content;
use crate::object::{Ec, Sm, Space};
use cloister_abi::cap::{NONE, Perms};
use cloister_abi::hypercall::{self as abi, DeviceFlags};
use cloister_abi::status::Status;

pub(super) fn assign(ec: &Ec, call: &abi::AssignDevice) -> Answer {
    lookup::<Machine>(ec, call.machine, Perms::MACHINE_DEVICE)?;
    let space = lookup::<Space>(ec, call.space, Perms::SPACE_ASSIGN)?;
    let flags = DeviceFlags::from_bits(call.flags).ok_or(Status::BadParameter)?;
    let device = u16::try_from(call.device).map_err(|_| Status::BadParameter)?;
    // Without an IOMMU there are no DMA spaces.
    iommu::limits().ok_or(Status::BadFeature)?;
    let Content::Dma(tables) = &space.content else { return Err(Status::BadCapability) };
    if flags.contains(DeviceFlags::REMOVE) {
        iommu::remove(tables, device)?;
    } else {
        iommu::assign(tables, device)?;
    }
    Ok((0, 0))
}

pub(super) fn fault(ec: &Ec, call: &abi::DeviceFault) -> Answer {
    lookup::<Machine>(ec, call.machine, Perms::MACHINE_DEVICE)?;
    iommu::limits().ok_or(Status::BadFeature)?;
    if call.sm != NONE {
        iommu::bind(lookup::<Sm>(ec, call.sm, Perms::SM_BIND)?);
        return Ok((0, 0));
    }
    let (fault, lost) = iommu::take().ok_or(Status::Timeout)?;
    let record = abi::FaultRecord { device: fault.device.0, cause: fault.cause as u8, write: fault.write, lost };
    Ok((fault.address, record.pack()))
}
