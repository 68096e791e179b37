// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Terminal interface.

use crate::Driver;
use cloister_base::{Cap, Error, ObjectId, selectors, time};
use cloister_session::{Bytes, CHUNK, Terminal};

/// A call to one session.
pub(crate) struct Call<'a> {
    pub(crate) driver: &'a mut Driver,
    pub(crate) id: ObjectId,
}

impl Terminal for Call<'_> {
    fn read(&mut self) -> Result<Bytes<CHUNK>, Error> {
        let stream = self.driver.sessions.get(self.id).ok_or(Error::NoSuchObject)?.stream;
        let typed = self.driver.terminal.read(stream, CHUNK);
        Bytes::from_slice(&typed).map_err(|_| Error::TooLong)
    }

    fn write(&mut self, data: &[u8]) -> Result<u64, Error> {
        let session = self.driver.sessions.get_mut(self.id).ok_or(Error::NoSuchObject)?;
        let now = time::now();
        let taken = self.driver.terminal.write(session.stream, data, now);
        session.waits |= taken < data.len();
        let deadline = self.driver.terminal.show_unfinished(now).unwrap_or(0);
        if deadline != 0 && (self.driver.deadline == 0 || deadline < self.driver.deadline) {
            self.driver.deadline = deadline;
            self.driver.poke.raise();
        }
        Ok(taken as u64)
    }

    fn signal_handler(&mut self, handler: Option<Cap>) -> Result<(), Error> {
        let session = self.driver.sessions.get_mut(self.id).ok_or(Error::NoSuchObject)?;
        if let Some(old) = core::mem::replace(&mut session.handler, handler) {
            selectors::drop_capability(old.selector);
        }
        Ok(())
    }

    fn size(&mut self) -> Result<u64, Error> {
        Ok(0)
    }
}
