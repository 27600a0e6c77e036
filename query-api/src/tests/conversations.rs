//! Conversations, members, receipts.

use schemas::rest::{Conversation, Delivery, Member, MemberReceipt, Page};
use schemas::{Kind, Role};
use uuid::Uuid;

use super::{World, at};

#[tokio::test]
async fn a_conversation_is_shown_from_ones_own_side() {
    let world = World::new().await;
    let (ann, ben) = (world.user("ann", None).await, world.user("ben", None).await);
    let direct = world.conversation("direct", "all", &[ann, ben]).await;
    let empty = world.one(ann, direct).await;
    assert_eq!((empty.kind, empty.role, empty.member_count, empty.last_seq), (Kind::Direct, Role::Owner, 2, 1));
    assert_eq!((empty.last_message, empty.unread, empty.name), (None, 0, None));

    for seq in 2..=4 {
        world.message(direct, seq, ann).await;
    }
    world.receipt(direct, ben, 3, 2).await;
    let bens = world.one(ben, direct).await;
    assert_eq!((bens.unread, bens.delivered_to, bens.read_to, bens.last_seq), (2, 3, 2, 4));
    assert_eq!(bens.updated_at, at(4));
    let anns = world.one(ann, direct).await;
    assert_eq!((anns.unread, anns.delivered_to, anns.read_to), (0, 0, 0), "sending moves neither watermark");
    let last = anns.last_message.unwrap();
    assert_eq!((last.message.seq, last.message.content.as_deref(), last.status), (4, Some("number 4"), Delivery::Sent));
}

#[tokio::test]
async fn what_one_never_was_a_member_of_is_unknown_and_what_one_left_is_forbidden() {
    let world = World::new().await;
    let (ann, ben, eve) = (world.user("a", None).await, world.user("b", None).await, world.user("e", None).await);
    let group = world.conversation("group", "all", &[ann, ben]).await;
    let message = world.message(group, 2, ann).await;
    let unknown = Uuid::now_v7();
    for rest in ["", "/members", "/messages", "/receipts", "/messages/MESSAGE", "/messages/MESSAGE/receipts"] {
        let rest = rest.replace("MESSAGE", &message.to_string());
        let path = |conversation| format!("/v1/conversations/{conversation}{rest}");
        world.get(eve, &path(group)).await.is_problem(404, None);
        world.get(ann, &path(unknown)).await.is_problem(404, None);
        let (theirs, none) = (world.get(eve, &path(group)).await.json(), world.get(eve, &path(unknown)).await.json());
        assert_eq!((&theirs["type"], &theirs["detail"]), (&none["type"], &none["detail"]));
    }
    world.get(ann, "/v1/conversations/not-an-id").await.is_problem(404, None);
    world.leave(group, ben, 3).await;
    for rest in ["", "/members", "/messages", "/receipts", "/messages/MESSAGE", "/messages/MESSAGE/receipts"] {
        let rest = rest.replace("MESSAGE", &message.to_string());
        world.get(ben, &format!("/v1/conversations/{group}{rest}")).await.is_problem(403, None);
    }
    let list: Page<Conversation> = world.get(ben, "/v1/conversations").await.is();
    assert_eq!(list.items, []);
    world.join(group, ben, 4, "admin").await;
    let again = world.one(ben, group).await;
    assert_eq!((again.role, again.delivered_to, again.read_to, again.unread), (Role::Admin, 4, 4, 0));
}

#[tokio::test]
async fn conversations_come_by_their_last_change_page_by_page() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let mut made = Vec::new();
    for nth in 0..7 {
        let group = world.conversation("group", "all", &[ann]).await;
        // Two and two at the same instant.
        world.message(group, 2 + nth / 2, ann).await;
        made.push((at(2 + nth / 2), group));
    }
    made.sort_unstable_by(|one, other| other.cmp(one));
    let (pages, counts) = world.pages::<Conversation>(ann, "/v1/conversations?limit=3").await;
    assert_eq!(counts, [3, 3, 1]);
    let listed: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    assert_eq!(listed.iter().map(|one| (one.updated_at, one.conversation_id)).collect::<Vec<_>>(), made);
    for one in &listed {
        assert_eq!(&world.one(ann, one.conversation_id).await, one);
    }
}

#[tokio::test]
async fn members_and_receipts_are_those_who_are_there() {
    let world = World::new().await;
    let ann = world.user("ann", Some("Ann")).await;
    let mut members = vec![ann];
    for nth in 0..5 {
        members.push(world.user(&format!("member{nth}"), None).await);
    }
    let group = world.conversation("group", "all", &members).await;
    world.leave(group, members[1], 2).await;
    world.receipt(group, members[2], 2, 1).await;
    let there: Vec<_> = members.iter().copied().filter(|id| *id != members[1]).collect();

    let path = format!("/v1/conversations/{group}/members?limit=2");
    let (pages, counts) = world.pages::<Member>(ann, &path).await;
    assert_eq!(counts, [2, 2, 1]);
    let listed: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    let mut ids: Vec<_> = listed.iter().map(|member| member.user_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, there);
    let owner = listed.iter().find(|member| member.user_id == ann).unwrap();
    assert_eq!((owner.role, owner.display_name.as_deref(), owner.joined_at), (Role::Owner, Some("Ann"), at(0)));

    let path = format!("/v1/conversations/{group}/receipts?limit=2");
    let (pages, counts) = world.pages::<MemberReceipt>(ann, &path).await;
    assert_eq!(counts, [2, 2, 1]);
    let receipts: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    for receipt in receipts {
        let moved = receipt.user_id == members[2];
        assert_eq!((receipt.delivered_to, receipt.read_to), if moved { (2, 1) } else { (0, 0) });
    }
}

#[tokio::test]
async fn limits_and_cursors_are_checked_in_every_list() {
    let world = World::new().await;
    let ann = world.user("ann", None).await;
    let group = world.conversation("group", "all", &[ann]).await;
    let message = world.message(group, 2, ann).await;
    let other = crate::page::Cursor(crate::tests::conversations::Foreign(1)).to_text();
    for list in [
        "/v1/users?query=a&".to_owned(),
        "/v1/sessions?".to_owned(),
        "/v1/conversations?".to_owned(),
        format!("/v1/conversations/{group}/members?"),
        format!("/v1/conversations/{group}/messages?"),
        format!("/v1/conversations/{group}/receipts?"),
        format!("/v1/conversations/{group}/messages/{message}/receipts?"),
    ] {
        for limit in ["0", "201", "-1", "many", "", "1.5", "99999999999999999999"] {
            world.get(ann, &format!("{list}limit={limit}")).await.is_problem(422, Some("limit"));
        }
        for cursor in ["x", "", "%00", &"A".repeat(600), &other] {
            world.get(ann, &format!("{list}cursor={cursor}")).await.is_problem(422, Some("cursor"));
        }
        assert_eq!(world.get(ann, &format!("{list}limit=200")).await.status, 200, "{list}");
        assert_eq!(world.get(ann, &format!("{list}limit=1&unknown=x")).await.status, 200, "{list}");
    }
}

/// The cursor of a list that there is not.
#[derive(serde::Serialize, serde::Deserialize)]
struct Foreign(u64);

impl crate::page::Key for Foreign {
    const LIST: &'static str = "foreign";
}
