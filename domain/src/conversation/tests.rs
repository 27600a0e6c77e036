//! Given/when/then of conversations, and what holds whatever is asked.

use cqrs_es::Aggregate;
use cqrs_es::test::TestFramework;
use proptest::prelude::*;

use super::*;

const ANN: Uuid = Uuid::from_u128(1);
const BEN: Uuid = Uuid::from_u128(2);
const EVE: Uuid = Uuid::from_u128(3);

fn created(kind: Kind, members: &[(Uuid, Role)]) -> Created {
    let name = (kind == Kind::Group).then(|| "trip".to_owned());
    Created { kind, name, history: History::All, members: members.to_vec(), by: members[0].0 }
}

fn group(members: &[(Uuid, Role)]) -> Vec<ConversationEvent> {
    vec![created(Kind::Group, members).into()]
}

fn set(by: Uuid, user_id: Uuid, role: Role) -> ConversationCommand {
    ConversationCommand::SetMember { by, user_id, role, next_seq: 9 }
}

fn remove(by: Uuid, user_id: Uuid) -> ConversationCommand {
    ConversationCommand::RemoveMember { by, user_id }
}

fn refused(given: Vec<ConversationEvent>, when: ConversationCommand, why: ConversationRefusal) {
    TestFramework::<Conversation>::with(()).given(given).when(when).then_expect_error(why);
}

fn decided(given: Vec<ConversationEvent>, when: ConversationCommand, then: Vec<ConversationEvent>) {
    TestFramework::<Conversation>::with(()).given(given).when(when).then_expect_events(then);
}

#[test]
fn opening_again_with_the_same_content_changes_nothing() {
    let wanted = created(Kind::Group, &[(ANN, Role::Owner), (BEN, Role::Member), (EVE, Role::Member)]);
    let shuffled = Created { members: wanted.members.iter().rev().copied().collect(), ..wanted.clone() };
    decided(vec![wanted.clone().into()], ConversationCommand::Create(shuffled), vec![]);
    let other = Created { name: Some("other".into()), ..wanted.clone() };
    refused(vec![wanted.into()], ConversationCommand::Create(other), ConversationRefusal::Exists);
}

#[test]
fn a_stranger_learns_nothing_and_a_former_member_is_told() {
    let given = group(&[(ANN, Role::Owner), (BEN, Role::Member)]);
    refused(given.clone(), set(EVE, BEN, Role::Member), ConversationRefusal::Unknown);
    let left = [given, vec![MemberLeft { user_id: BEN, by: ANN }.into()]].concat();
    refused(left, remove(BEN, ANN), ConversationRefusal::FormerMember);
}

#[test]
fn a_member_joins_with_the_number_of_the_event() {
    let joined = MemberJoined { user_id: BEN, role: Role::Member, by: ANN, joined_seq: 9 };
    decided(group(&[(ANN, Role::Owner)]), set(ANN, BEN, Role::Member), vec![joined.into()]);
}

#[test]
fn an_admin_makes_members_and_admins_and_touches_no_owner() {
    let given = group(&[(ANN, Role::Owner), (BEN, Role::Admin), (EVE, Role::Member)]);
    let promoted = MemberRoleChanged { user_id: EVE, role: Role::Admin, by: BEN };
    decided(given.clone(), set(BEN, EVE, Role::Admin), vec![promoted.into()]);
    refused(given.clone(), set(BEN, EVE, Role::Owner), ConversationRefusal::Role);
    refused(given.clone(), set(BEN, ANN, Role::Member), ConversationRefusal::Role);
    refused(given.clone(), set(BEN, BEN, Role::Owner), ConversationRefusal::Role);
    refused(given, remove(BEN, ANN), ConversationRefusal::Role);
}

#[test]
fn the_last_owner_stays_while_others_remain() {
    let given = group(&[(ANN, Role::Owner), (BEN, Role::Admin)]);
    refused(given.clone(), remove(ANN, ANN), ConversationRefusal::LastOwner);
    refused(given, set(ANN, ANN, Role::Member), ConversationRefusal::LastOwner);
    let left = MemberLeft { user_id: ANN, by: ANN };
    decided(group(&[(ANN, Role::Owner)]), remove(ANN, ANN), vec![left.clone().into()]);
    decided(group(&[(ANN, Role::Owner), (BEN, Role::Owner)]), remove(ANN, ANN), vec![left.into()]);
}

#[test]
fn a_direct_conversation_keeps_its_members_and_has_no_name() {
    let given = vec![created(Kind::Direct, &[(ANN, Role::Owner), (BEN, Role::Member)]).into()];
    refused(given.clone(), set(ANN, EVE, Role::Member), ConversationRefusal::Direct);
    refused(given.clone(), remove(BEN, BEN), ConversationRefusal::Direct);
    let rename = ConversationCommand::Change { by: ANN, name: Some("us".into()), history: None };
    refused(given, rename, ConversationRefusal::Direct);
}

#[test]
fn a_change_makes_an_event_only_for_what_differs() {
    let change = ConversationCommand::Change { by: ANN, name: Some("trip".into()), history: Some(History::SinceJoin) };
    let changed = SettingsChanged { history: History::SinceJoin, by: ANN };
    decided(group(&[(ANN, Role::Owner)]), change, vec![changed.into()]);
}

#[test]
fn leaving_again_changes_nothing() {
    let left = MemberLeft { user_id: BEN, by: BEN };
    let given = [group(&[(ANN, Role::Owner), (BEN, Role::Member)]), vec![left.into()]].concat();
    decided(given, remove(BEN, BEN), vec![]);
}

fn any_command() -> impl Strategy<Value = ConversationCommand> {
    let user = (1u128..6).prop_map(Uuid::from_u128);
    let role = prop_oneof![Just(Role::Member), Just(Role::Admin), Just(Role::Owner)];
    prop_oneof![
        (user.clone(), user.clone(), role).prop_map(|(by, whom, role)| set(by, whom, role)),
        (user.clone(), user).prop_map(|(by, whom)| remove(by, whom)),
    ]
}

proptest! {
    /// Whatever is asked: a group with members has an owner, nobody is both member and former member, and a decision
    /// made twice is the same.
    #[test]
    fn a_group_never_loses_its_last_owner(commands in prop::collection::vec(any_command(), 1..60)) {
        let mut group = Conversation::default();
        group.apply(created(Kind::Group, &[(ANN, Role::Owner), (BEN, Role::Member)]).into());
        for command in commands {
            let decided = group.decide(command.clone());
            prop_assert_eq!(&decided, &group.decide(command));
            for event in decided.unwrap_or_default() {
                group.apply(event);
            }
            let owners = group.members().values().filter(|member| member.role == Role::Owner).count();
            prop_assert!(owners > 0 || group.members().is_empty());
            prop_assert!(group.members().keys().all(|id| !group.former.contains(id)));
        }
    }

    /// A member with no rank changes nothing but their own presence.
    #[test]
    fn a_plain_member_only_leaves(commands in prop::collection::vec(any_command(), 1..60)) {
        let mut group = Conversation::default();
        group.apply(created(Kind::Group, &[(ANN, Role::Owner), (BEN, Role::Member), (EVE, Role::Member)]).into());
        for command in commands {
            let by_ben = matches!(&command, ConversationCommand::SetMember { by, .. }
                | ConversationCommand::RemoveMember { by, .. } if *by == BEN);
            if !by_ben {
                continue;
            }
            for event in group.decide(command).unwrap_or_default() {
                prop_assert_eq!(event, MemberLeft { user_id: BEN, by: BEN }.into());
            }
        }
    }
}
