DO $generate$
DECLARE
    noted RECORD;
BEGIN
    FOR noted IN SELECT tgname, tgrelid::regclass AS name, tgfoid::regprocedure AS function FROM pg_trigger
        WHERE tgname LIKE 'outbox\_%' AND NOT tgisinternal
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', noted.tgname, noted.name);
        EXECUTE format('DROP FUNCTION %s', noted.function);
    END LOOP;
END $generate$;
DROP TABLE outbox;
