//! The address groups of a generation.

use gateway_core::{
    classify,
    image::{ADDRESS_GROUPS, AddressGroup, half},
};

use crate::maps;

/// The groups of one generation: their half of the array, and the slot of their table.
pub(crate) struct Groups {
    pub(crate) half: u32,
    pub(crate) slot: u32,
}

impl classify::Groups for Groups {
    #[inline(always)]
    fn group(&self, number: u32) -> Option<AddressGroup> {
        maps::ADDRESS_GROUP
            .get(half(self.half, ADDRESS_GROUPS, number))
            .copied()
    }

    #[inline(always)]
    fn by_group(&self, group: u32, class: u16, source_class: u16) -> u32 {
        let key = u64::from(group) << 32 | u64::from(class) << 16 | u64::from(source_class);
        let Some(table) = maps::GROUP_TABLE.get(self.slot) else {
            return 0;
        };
        // SAFETY: entries of a table in force are not changed; it is replaced whole.
        match unsafe { table.get(&key) } {
            Some(service) => *service,
            None => 0,
        }
    }
}
