-- The catalog is all receivers and groups. Processes keep what they have read of it for as long as its token is the same.
-- The token is random, not a counter, so that a restored backup never has the token of another content.
CREATE TABLE catalog (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    token uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO catalog DEFAULT VALUES;

-- Triggers change the token, so that older servers and psql change it, too. The function works under any search_path.
CREATE FUNCTION renew_catalog_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.catalog SET token = gen_random_uuid()', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;

CREATE TRIGGER renew_catalog_token AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON receivers
FOR EACH STATEMENT EXECUTE FUNCTION renew_catalog_token();
CREATE TRIGGER renew_catalog_token AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON groups
FOR EACH STATEMENT EXECUTE FUNCTION renew_catalog_token();
CREATE TRIGGER renew_catalog_token AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON group_members
FOR EACH STATEMENT EXECUTE FUNCTION renew_catalog_token();
