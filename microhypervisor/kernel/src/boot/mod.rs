// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the loader's hands to the root task.
//!
//! Order: console, what the loader says, processor, firmware tables, memory for the kernel, the kernel's own page tables, interrupts
//! and timer, guests, the root task. An error on the way is printed and stops the machine: there is nothing yet that
//! could go on without.

mod image;
mod layout;
mod root;

use crate::arch::bootinfo::BootInfo;
use crate::arch::{
    acpi, cpu, first_exit, fpu, guest, iommu, irq, paging, percore, power, serial, smp, speculation, timer,
};
use crate::memory::{self, Own};
use crate::{console, interrupt};
use cloister_abi::hip::features;
pub(crate) use cloister_mechanism::layout::bytes;

/// First Rust code: on the boot stack, with the boot page tables. `protocol` is 1 for PVH, 2 for Multiboot 2.
pub(crate) extern "C" fn start(protocol: u64, information: u64) -> ! {
    let info = BootInfo::read(protocol, information);
    console::init(info.as_ref().map_or("", |info| info.said.command_line()));
    log::info!("Cloister microhypervisor {}, contract {}", env!("CARGO_PKG_VERSION"), cloister_abi::VERSION);
    match info.and_then(bring_up) {
        // SAFETY: the root task's EC is ready to run; the boot stack is left for good.
        Ok(()) => unsafe { first_exit() },
        Err(why) => {
            log::error!("cannot start: {why}");
            power::off(0xef)
        }
    }
}

fn bring_up(mut info: BootInfo) -> Result<(), &'static str> {
    cpu::identify();
    power::init(info.said.command_line());
    speculation::init(info.said.command_line());
    cpu::init(info.said.command_line())?;
    acpi::init(info.said.rsdp);
    let root = image::root_task(info.said.image)?;
    let start_up = info.low_page();
    let pool = layout::choose_pool(&mut info)?;
    let free = iommu::find(info.said.command_line(), pool.0);
    // SAFETY: the range was taken out of what is available, and the boot direct map covers it.
    unsafe { memory::init(free, pool.1) };
    crate::trace::init(info.said.command_line());
    // SAFETY: called once, with a head that is static.
    unsafe { percore::activate_boot_core() };
    crate::percore::BOOT_CORE.publish();
    memory::book(Own::Other);
    smp::prepare(start_up);
    memory::book(Own::Cores);
    let mut pages = heapless::Vec::<u64, 72>::new();
    let mut complete = true;
    let mut add = |page| complete &= pages.contains(&page) || pages.push(page).is_ok();
    irq::register_pages().chain(power::register_pages()).for_each(&mut add);
    iommu::register_pages(add);
    if !complete {
        return Err("more devices than the kernel can reach");
    }
    // SAFETY: nothing refers to memory outside image and pool from here on.
    unsafe { paging::build(pool, &pages)? };
    memory::book(Own::Tables);
    let image = paging::image();
    for (start, end) in [image, pool].into_iter().chain(pages.iter().map(|page| (*page, *page + 4096))) {
        memory::keep(start, end)?;
    }
    // Where interrupt messages go: nobody's memory.
    memory::keep(0xfee0_0000, 0xfef0_0000)?;
    fpu::announce();
    irq::init();
    interrupt::add_core(0)?;
    timer::init();
    let mut found = iommu::init();
    match guest::init(crate::percore::core()) {
        Ok(feature) => found |= feature,
        Err(why) => log::warn!("no guests: {why}"),
    }
    memory::book(Own::Other);
    // `cores=N`, or all.
    let most = option(info.said.command_line(), "cores=").and_then(|most| most.parse().ok()).filter(|most| *most > 0);
    let cores = smp::start_all(most.unwrap_or(crate::percore::CORES));
    memory::book(Own::Cores);
    crate::trace::announce();
    if cpu::has(cpu::feature::INVARIANT_TSC) {
        found |= features::INVARIANT_TSC;
    }
    log::info!(
        "{cores} cores, time-stamp counter {} MHz, {} interrupts, kernel memory {} KiB, console at port {:#x}",
        timer::tsc_hz() / 1_000_000,
        irq::count(),
        memory::pool_size() / 1024,
        serial::ports().0
    );
    crate::crash::test(info.said.command_line());
    root::start(&info, &root, found)
}

/// What follows `name` in the first word of the command line that begins so.
pub(crate) fn option<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_ascii_whitespace().find_map(|word| word.strip_prefix(name))
}
