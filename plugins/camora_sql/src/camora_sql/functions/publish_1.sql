-- Store messages, once for each id and each key; answers the places, from 1, of those that another job stands for.
-- What is the same for all of them comes once, and what is NULL for all of them not at all.
-- Each statement in here sees what was committed until then: so an id that ends at this very moment is not stored again.
-- Its commit waits for the disk if p_flush says so; that holds for all of these functions.
CREATE FUNCTION {publish_1}(
    p_flush boolean, p_now bigint, p_ids text[], p_queues text[], p_priorities int[], p_dues bigint[], p_expires bigint[],
    p_keys text[], p_key_ttls float8[], p_tasks text[], p_bodies bytea[]
) RETURNS TABLE (place int, holder text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    stored text[];
    taken int[] := '{{}}';
    mine text[] := '{{}}';
    finished text[];
    found_holder text;
    one record;
BEGIN
    IF NOT p_flush THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF cardinality(array_remove(p_keys, NULL)) > 0 THEN
        FOR one IN
            SELECT u.id, u.key, u.place::int AS place
            FROM unnest(p_ids, p_keys) WITH ORDINALITY AS u(id, key, place)
            ORDER BY u.place
        LOOP
            -- Of an id that comes twice the first place counts, and with it that key.
            CONTINUE WHEN one.id = ANY (mine);
            IF one.key IS NULL THEN
                mine := mine || one.id;
                CONTINUE;
            END IF;
            CONTINUE WHEN EXISTS (SELECT 1 FROM {jobs} WHERE id = one.id)
                OR EXISTS (SELECT 1 FROM {results} WHERE id = one.id AND final = 1)
                OR EXISTS (SELECT 1 FROM {done} WHERE id = one.id)
                OR EXISTS (SELECT 1 FROM {dead_letters} WHERE id = one.id);
            INSERT INTO {keys} AS k (key, job, until) VALUES (one.key, one.id, NULL)
            ON CONFLICT (key) DO UPDATE SET job = excluded.job, until = NULL WHERE k.until <= p_now
            RETURNING k.job INTO found_holder;
            IF NOT FOUND THEN
                -- It is there: a row that was met, and not changed, is locked all the same.
                SELECT job INTO found_holder FROM {keys} WHERE key = one.key;
            END IF;
            IF found_holder = one.id THEN
                mine := mine || one.id;
            ELSE
                taken := taken || one.place;
                place := one.place;
                holder := found_holder;
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;
    BEGIN
        -- Ids are new, but for repetitions; looking for conflicts row by row costs as much as storing them.
        INSERT INTO {jobs} (id, queue, state, priority, due, expires, key, key_ttl, task, body)
        SELECT u.id, coalesce(u.queue, p_queues[1]), CASE WHEN coalesce(u.due, p_dues[1]) > p_now THEN 1 ELSE 0 END,
            coalesce(u.priority, p_priorities[1]), coalesce(nullif(coalesce(u.due, p_dues[1]), 0), p_now), u.expires,
            u.key, coalesce(u.key_ttl, p_key_ttls[1]), coalesce(u.task, p_tasks[1]), u.body
        FROM unnest(p_ids, p_queues, p_priorities, p_dues, p_expires, p_keys, p_key_ttls, p_tasks, p_bodies)
            WITH ORDINALITY AS u(id, queue, priority, due, expires, key, key_ttl, task, body, place)
        WHERE u.place <> ALL (taken)
        ORDER BY u.place;
        stored := CASE WHEN cardinality(taken) = 0 THEN p_ids ELSE ARRAY(
            SELECT u.id FROM unnest(p_ids) WITH ORDINALITY AS u(id, place) WHERE u.place <> ALL (taken)
        ) END;
    EXCEPTION WHEN unique_violation THEN
        WITH put AS (
            INSERT INTO {jobs} (id, queue, state, priority, due, expires, key, key_ttl, task, body)
            SELECT u.id, coalesce(u.queue, p_queues[1]), CASE WHEN coalesce(u.due, p_dues[1]) > p_now THEN 1 ELSE 0 END,
                coalesce(u.priority, p_priorities[1]), coalesce(nullif(coalesce(u.due, p_dues[1]), 0), p_now), u.expires,
                u.key, coalesce(u.key_ttl, p_key_ttls[1]), coalesce(u.task, p_tasks[1]), u.body
            FROM unnest(p_ids, p_queues, p_priorities, p_dues, p_expires, p_keys, p_key_ttls, p_tasks, p_bodies)
                WITH ORDINALITY AS u(id, queue, priority, due, expires, key, key_ttl, task, body, place)
            WHERE u.place <> ALL (taken)
            ORDER BY u.place
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        )
        SELECT array_agg(put.id) INTO stored FROM put;
    END;
    finished := ARRAY(
        SELECT s.id FROM unnest(stored) AS s(id)
        WHERE (SELECT true FROM {results} r WHERE r.id = s.id AND r.final = 1)
            OR (SELECT true FROM {done} d WHERE d.id = s.id)
            OR (SELECT true FROM {dead_letters} l WHERE l.id = s.id)
    );
    IF cardinality(finished) > 0 THEN
        DELETE FROM {jobs} WHERE id = ANY (finished);
        DELETE FROM {keys} k USING unnest(p_ids, p_keys) AS u(id, key)
        WHERE u.id = ANY (finished) AND k.key = u.key AND k.job = u.id AND k.until IS NULL;
    END IF;
END $$
