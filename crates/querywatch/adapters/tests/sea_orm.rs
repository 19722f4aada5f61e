//! SeaORM through the layer for sqlx.

use std::sync::LazyLock;

use querywatch::Scope;
use querywatch_adapters::{SQLX_WATCH, TABLE, assert_n_plus_one};
use sea_orm::entity::prelude::*;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};

mod items {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "items")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

async fn connect() -> DatabaseConnection {
    LazyLock::force(&SQLX_WATCH);
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(1);
    let db = Database::connect(options).await.unwrap();
    db.execute_unprepared(TABLE).await.unwrap();
    db
}

#[tokio::test]
async fn n_plus_one() {
    let db = connect().await;
    let scope = Scope::new(&SQLX_WATCH, "GET /items").run(async {
        for id in 0..9 {
            items::Entity::find_by_id(id).one(&db).await.unwrap();
        }
    });
    assert_n_plus_one(
        &scope.await.1,
        "SELECT \"items\".\"id\", \"items\".\"name\" FROM \"items\" WHERE \"items\".\"id\" = ?",
    );
}

#[tokio::test]
async fn a_budget_holds() {
    let db = connect().await;
    let scope = Scope::new(&SQLX_WATCH, "GET /items").run(async {
        let ids = items::Column::Id.is_in([1, 2, 3]);
        assert_eq!(items::Entity::find().filter(ids).all(&db).await.unwrap().len(), 3);
    });
    let (_, report) = scope.await;
    report.assert_budget(1);
    assert!(report.shapes()[0].sql.ends_with("\"items\".\"id\" IN (?)"), "{:?}", report.shapes());
}
