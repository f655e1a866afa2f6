{{ config(enabled=var('truto_history_prefix') is not none) }}

with versions as (
  -- A deletion has only the key, so count it as part of the version before it.
  select
    integrated_account_id,
    id,
    name,
    workspace_id,
    description,
    status,
    _ab_cdc_updated_at,
    _ab_cdc_deleted_at,
    count(case when _ab_cdc_deleted_at is null then 1 end) over (
      partition by integrated_account_id, id order by _ab_cdc_updated_at
    ) as version
  from {{ source('truto_history', 'segments') }}
)

select
  concat(integrated_account_id, '/', id, '/', version) as version_key,
  integrated_account_id,
  id as segment_id,
  version,
  max(name) as name,
  max(workspace_id) as workspace_id,
  max(description) as description,
  max(status) as status,
  min(_ab_cdc_updated_at) as valid_from,
  min(_ab_cdc_deleted_at) as deleted_at
from versions
group by integrated_account_id, id, version
