//! What docs/rules.md tells players are the numbers of the table.

use fortia_world::entity::Kind;
use fortia_world::goods::Goods;
use fortia_world::rules::{self, Product};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/rules.md");
    std::fs::read_to_string(path).expect("docs/rules.md")
}

fn goods(goods: Goods) -> String {
    let part = |count, name| (count > 0).then(|| format!("{count} {name}"));
    let parts = [part(goods.wood, "wood"), part(goods.stone, "stone")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn kind(kind: Kind) -> String {
    let of = rules::of(kind);
    let attacks = of.blow.map_or("–".to_owned(), |blow| {
        format!("{} health, {} blocks far, every {} ticks", blow.damage, blow.range, blow.rest)
    });
    let dies = of.returns_after.map_or("gone".to_owned(), |ticks| format!("back after {ticks} ticks"));
    let attackable = if of.attackable { "yes" } else { "no" };
    let orders = of.orders.join(", ");
    format!(
        "| {} | {} | {} | {attacks} | {attackable} | {dies} | {orders} |",
        kind.name(),
        of.health,
        of.carries
    )
}

fn product<T>(name: &str, product: &Product<T>) -> String {
    format!("| {name} | {} | {} ticks |", goods(product.cost), product.ticks)
}

/// The rows of the table in the document that begins with this head, without head and line.
fn rows(document: &str, head: &str) -> Vec<String> {
    let table = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    table.take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn the_document_has_the_tables_of_the_data() {
    let document = document();
    let all = |head| rows(&document, head);
    assert_eq!(all("| kind |"), Kind::ALL.map(kind));
    assert_eq!(all("| built by handymen |"), rules::BUILDINGS.map(|it| product(it.what.name(), &it)));
    assert_eq!(all("| trained by barracks |"), rules::RECRUITS.map(|it| product(it.what.name(), &it)));
    let yields = rules::YIELDS.map(|(block, gives)| format!("| {} | {} |", block.name(), goods(gives)));
    assert_eq!(all("| block | gives |"), yields);
}

#[test]
fn the_document_tells_the_other_numbers() {
    let document = document().replace('\n', " ");
    for text in [
        format!("gets a camp and {} handymen", rules::FIRST_HANDYMEN),
        format!("begins with {} wood and {} stone", rules::FIRST_STOCK.wood, rules::FIRST_STOCK.stone),
        format!("for {} ticks", rules::REMEMBERED),
        format!("up to {} pieces", rules::of(Kind::Handyman).carries),
        format!("ends within {} blocks of one of its owner's buildings", rules::REACH),
        format!(
            "at most {} blocks away sideways, {} below its feet and {} above; it fells trunks up to {} blocks",
            rules::REACH,
            rules::REACH_DOWN,
            rules::REACH_UP,
            rules::FELL_UP
        ),
    ] {
        assert!(document.contains(&text), "docs/rules.md does not say: {text}");
    }
}
