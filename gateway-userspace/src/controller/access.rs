//! Who may connect to the control socket: `[controller] socket_group`.

use super::engine::Engine;

/// The control socket's file, as the engine sees it.
pub trait Door: Send {
    /// Lets the members of a group connect beside the owner (none: of the controller's own group).
    ///
    /// # Errors
    /// One sentence with the way out; then only the owner may connect.
    fn let_in(&self, group: Option<&str>) -> Result<(), String>;
}

impl Engine {
    /// Gives the engine the door, and sets it as the policy says.
    pub fn mind_the_door(&mut self, door: Box<dyn Door>) {
        self.door = Some(door);
        if let Some(fault) = self.set_door() {
            tracing::warn!("{fault}");
        }
    }

    /// Sets the door as the policy in force says; returns what is wrong with that. A wrong group is no reason to refuse a
    /// policy in an emergency: nobody is let in by it, the owner and root still are.
    pub(super) fn set_door(&mut self) -> Option<String> {
        let door = self.door.as_ref()?;
        let group = self.in_force.prepared.policy.controller.socket_group.as_deref();
        self.door_fault = door.let_in(group).err();
        self.door_fault.clone()
    }
}
