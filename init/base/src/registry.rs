// SPDX-License-Identifier: MIT OR Apache-2.0
//! The objects of a server, by identity.

use crate::{Error, ObjectId};
use alloc::vec::Vec;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    object: Option<T>,
}

/// Objects by identity. An identity is never used twice (until a place was used four thousand million times).
#[derive(Debug)]
pub struct Registry<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Registry<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    /// An empty one with room for so many objects: it does not need memory for places until there are more.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self { places: Vec::with_capacity(count), free: Vec::with_capacity(count) }
    }

    /// Adds an object.
    ///
    /// # Errors
    /// [`Error::OutOfCaps`] at four thousand million objects.
    pub fn insert(&mut self, object: T) -> Result<ObjectId, Error> {
        self.insert_with(|_| object)
    }

    /// Adds an object that wants to know its identity.
    ///
    /// # Errors
    /// [`Error::OutOfCaps`] at four thousand million objects.
    pub fn insert_with(&mut self, make: impl FnOnce(ObjectId) -> T) -> Result<ObjectId, Error> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.places.len());
                self.places.push(Place { generation: 1, object: None });
                index.map_err(|_| Error::OutOfCaps { needed: 1, available: 0 })?
            }
        };
        let place = self.places.get_mut(index as usize).ok_or(Error::NoSuchObject)?;
        let id = ObjectId { index, generation: place.generation };
        place.object = Some(make(id));
        Ok(id)
    }

    /// The object of that identity.
    #[must_use]
    pub fn get(&self, id: ObjectId) -> Option<&T> {
        self.places.get(id.index as usize).filter(|place| place.generation == id.generation)?.object.as_ref()
    }

    /// The object of that identity, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, id: ObjectId) -> Option<&mut T> {
        self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?.object.as_mut()
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: ObjectId) -> Option<T> {
        let place = self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?;
        let object = place.object.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(object)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectId, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| {
            place.object.as_ref().map(|object| (ObjectId { index, generation: place.generation }, object))
        })
    }

    /// All objects, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ObjectId, &mut T)> {
        (0..).zip(&mut self.places).filter_map(|(index, place)| {
            let generation = place.generation;
            place.object.as_mut().map(|object| (ObjectId { index, generation }, object))
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Registry;
    use crate::ObjectId;

    #[test]
    fn a_stale_identity_finds_nothing() {
        let mut registry = Registry::new();
        let first = registry.insert("first").expect("room");
        assert_eq!(registry.remove(first), Some("first"));
        let second = registry.insert("second").expect("room");
        assert_eq!(first.index, second.index);
        assert_eq!(registry.get(first), None);
        assert_eq!(registry.remove(first), None);
        assert_eq!(registry.get(second), Some(&"second"));
        assert_eq!(registry.len(), 1);
        assert_eq!(registry.get(ObjectId { index: 9, generation: 1 }), None);
    }

    #[test]
    fn identities_survive_the_kernel() {
        let id = ObjectId { index: 0xdead_beef, generation: 0x1234_5678 };
        assert_eq!(ObjectId::from_raw(id.to_raw()), id);
    }
}
