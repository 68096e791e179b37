// SPDX-License-Identifier: MIT OR Apache-2.0
//! The services: each file implements one or two session interfaces on [`Call`].

pub(crate) mod cpu;
mod devices;
mod memory;
mod parent;
mod pd;
mod rm;
pub(crate) mod small;
mod timer;
mod vm;

use crate::machine::Core;
use crate::objects::Thing;
use cloister_base::{Error, ObjectId, entry};
use cloister_session::{
    CpuServer, DataspaceServer, Decoder, Encoder, IoMemServer, IoPortServer, IrqServer, LogServer, ParentServer,
    PdServer, PlatformServer, RegionMapServer, RmServer, RomServer, ThreadServer, TimerServer, VmServer,
};

/// A call to an object.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) id: ObjectId,
}

/// Answers a call.
pub(crate) fn dispatch(core: &mut Core, id: ObjectId, request: &mut Decoder<'_>, reply: &mut Encoder<'_>) {
    let Some(kind) = core.objects.get(id) else {
        entry::refuse(reply, Error::NoSuchObject);
        return;
    };
    macro_rules! served {
        ($server:ident) => {
            |call, request, reply| $server::dispatch(call, request, reply)
        };
    }
    let serve: fn(&mut Call<'_>, &mut Decoder<'_>, &mut Encoder<'_>) = match kind.object {
        Thing::Parent(_) => served!(ParentServer),
        Thing::Pd(_) => served!(PdServer),
        Thing::Cpu(_) => served!(CpuServer),
        Thing::Thread(_) => served!(ThreadServer),
        Thing::Dataspace(_) => served!(DataspaceServer),
        Thing::Vm(_) => served!(VmServer),
        Thing::Rom(_) => served!(RomServer),
        Thing::Log(_) => served!(LogServer),
        Thing::IoMem(_) => served!(IoMemServer),
        Thing::IoPort(_) => served!(IoPortServer),
        Thing::Irq(_) => served!(IrqServer),
        Thing::Timer(_) => served!(TimerServer),
        Thing::Platform(_) => served!(PlatformServer),
        Thing::Rm(_) => served!(RmServer),
        Thing::RegionMap(_) => served!(RegionMapServer),
    };
    serve(&mut Call { core, id }, request, reply);
}
