// SPDX-License-Identifier: MIT OR Apache-2.0
//! A driver of QEMU's `edu`, a PCI device that copies between memory and a buffer of its own, to and from any address it is told. QEMU,
//! docs/specs/edu.txt.

use crate::harness::{Failure, Outcome};
use crate::pci::{Function, MSI, Registers};
use cloister_abi::cap::{Access, Selector, SpaceKind};
use cloister_abi::hip::{MACHINE, ROOT_PD, features};
use cloister_abi::hypercall::{AssignDevice, CreateSpace, Delegate, DeviceFault, DeviceFlags, FaultRecord};
use cloister_abi::status::Status;
use cloister_bare::kernel::{call, selector};
use cloister_bare::memory::PAGE;
use cloister_bare::{entry::hip, time};

/// Registers, from the start of its first window.
const INTERRUPT_RAISE: u64 = 0x60;
const INTERRUPT_CLEAR: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
/// Its buffer, as its DMA engine sees it.
const BUFFER: u64 = 0x4_0000;

const IDENTITY: u32 = 0x11e8_1234;

/// The device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edu {
    /// Its place in configuration space.
    pub(crate) function: Function,
    registers: Registers,
    msi: u8,
}

/// Whether the kernel says that there is an IOMMU.
pub(crate) fn has_iommu() -> bool {
    hip().features & features::IOMMU != 0
}

/// The PCI function of an AMD-Vi unit, if this machine has one.
pub(crate) fn amd_unit() -> Option<Function> {
    (0..256).map(Function).find(|function| function.read(0) & 0xffff == 0x1022 && function.read(8) >> 16 == 0x0806)
}

impl Edu {
    /// Finds the device and switches it on. Skips the test if there is none, or no IOMMU.
    pub(crate) fn find() -> Result<Self, Failure> {
        if !has_iommu() {
            return Err(Failure::Skipped("no IOMMU"));
        }
        Self::anyhow()
    }

    /// As [`Self::find`], whether there is an IOMMU or not: for tests that let it do no DMA.
    pub(crate) fn anyhow() -> Result<Self, Failure> {
        let function = Function::find(IDENTITY)?.ok_or(Failure::Skipped("no educational device"))?;
        let msi = function.capability(MSI).ok_or(Failure::Skipped("no MSI"))?;
        Ok(Self { function, registers: function.registers(0, 0)?, msi })
    }

    fn copy(&self, from: u64, to: u64, bytes: u64, command: u32) -> Outcome {
        let word = |value: u64| u32::try_from(value).map_err(|_| Failure::Skipped("memory above 4 GiB"));
        self.registers.write(DMA_SOURCE, word(from)?);
        self.registers.write(DMA_DESTINATION, word(to)?);
        self.registers.write(DMA_COUNT, word(bytes)?);
        self.registers.write(DMA_COMMAND, 1 | command);
        let end = time::after(5_000_000);
        while self.registers.read(DMA_COMMAND) & 1 != 0 {
            if time::now() > end {
                return Err(Failure::Failed(crate::harness::Text::of(format_args!("edu does not end its DMA"))));
            }
        }
        Ok(())
    }

    /// Lets it read memory at an address of its own into its buffer.
    pub(crate) fn fetch(&self, address: u64, bytes: u64) -> Outcome {
        self.copy(address, BUFFER, bytes, 0)
    }

    /// Lets it write its buffer to memory at an address of its own.
    pub(crate) fn store(&self, address: u64, bytes: u64) -> Outcome {
        self.copy(BUFFER, address, bytes, 2)
    }

    /// Raises its interrupt.
    pub(crate) fn raise(&self) {
        self.registers.write(INTERRUPT_RAISE, 1);
    }

    /// Lowers it.
    pub(crate) fn clear(&self) {
        self.registers.write(INTERRUPT_CLEAR, 1);
    }

    /// Lets it send that message as its interrupt; with none, it uses its line.
    pub(crate) fn set_message(&self, message: Option<(u64, u64)>) {
        match message {
            Some(message) => self.function.enable_msi(self.msi, message),
            None => self.function.disable_msi(self.msi),
        }
    }

    /// Puts it into a space.
    pub(crate) fn assign(&self, space: Selector) -> Result<(), Status> {
        call(&AssignDevice { machine: MACHINE, space, device: self.function.0, flags: 0 }).map(drop)
    }

    /// Takes it out of a space.
    pub(crate) fn remove(&self, space: Selector) -> Result<(), Status> {
        let flags = DeviceFlags::REMOVE.bits();
        call(&AssignDevice { machine: MACHINE, space, device: self.function.0, flags }).map(drop)
    }
}

/// A DMA space that this program pays for.
pub(crate) fn space() -> Result<Selector, Status> {
    let sel = selector();
    call(&CreateSpace { sel, pd: ROOT_PD, kind: SpaceKind::Dma as u64 })?;
    Ok(sel)
}

/// Gives a space a page of memory.
pub(crate) fn give(space: Selector, physical: u64, address: u64, rights: Access) -> Result<(), Status> {
    call(&Delegate {
        src: cloister_abi::hip::MACHINE_MEMORY,
        dst: space,
        src_base: physical / PAGE,
        dst_base: address / PAGE,
        order: 0,
        rights: rights.bits().into(),
    })
    .map(drop)
}

/// The oldest fault that the kernel has kept.
pub(crate) fn fault() -> Result<(u64, FaultRecord), Status> {
    let taken = call(&DeviceFault { machine: MACHINE, sm: cloister_abi::cap::NONE })?;
    Ok((taken.0, FaultRecord::unpack(taken.1)))
}

/// Forgets all faults.
pub(crate) fn forget_faults() {
    while fault().is_ok() {}
}
