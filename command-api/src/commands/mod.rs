//! Commands as the log carries them out: what each reads, how it asks the domain, what it emits and claims. One file each.

mod advance_receipt;
mod change_conversation;
mod change_password;
mod change_profile;
mod find_conversation;
mod open_conversation;
mod read_audit;
mod refresh_session;
mod register_user;
mod remove_member;
mod revoke_sessions;
mod send_message;
mod set_member;
mod set_role;
mod start_session;

pub(crate) use advance_receipt::{AdvanceReceipt, Moved};
pub(crate) use change_conversation::ChangeConversation;
pub(crate) use change_password::ChangePassword;
pub(crate) use change_profile::ChangeProfile;
pub(crate) use find_conversation::FindConversation;
pub(crate) use open_conversation::{OpenConversation, OpenRefusal};
pub(crate) use read_audit::ReadAudit;
pub(crate) use refresh_session::{RefreshRefusal, RefreshSession};
pub(crate) use register_user::{EMAILS, RegisterUser, USERNAMES};
pub(crate) use remove_member::RemoveMember;
pub(crate) use revoke_sessions::{DEVICES, LiveSession, RevokeSessions, device_key};
pub(crate) use send_message::SendMessage;
pub(crate) use set_member::SetMember;
pub(crate) use set_role::{ROLES, SetRole, role_key};
pub(crate) use start_session::{StartRefusal, StartSession};
