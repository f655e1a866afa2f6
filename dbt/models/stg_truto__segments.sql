{%- set columns = adapter.get_columns_in_relation(source('truto', 'segments')) if execute else [] %}
{%- set has_remote_data = 'remote_data' in columns | map(attribute='name') | map('lower') | list %}
with segments as (
  {{ current_rows(source('truto', 'segments'), 'integrated_account_id, id') }}
),

workspaces as (
  {{ current_rows(source('truto', 'workspaces'), 'integrated_account_id, id') }}
),

counted as (
  -- Name the columns: a custom field can have the name of one of the model's own.
  select
    segments.integrated_account_id,
    segments.id,
    segments.name,
    segments.workspace_id,
    segments.description,
    segments.status,
    segments.is_starred,
    segments.created_at,
    segments.updated_at,
    segments.last_calculated_at,
    segments._ab_cdc_updated_at,
    accounts.customer,
    accounts.tool,
    accounts.tool_label,
    workspaces.name as workspace,
    {% if has_remote_data -%}
    case accounts.tool
      when 'activecampaign' then {{ json_text(
        'segments.remote_data', ['attributes', 'counts', 'last_total', 'count']) }}
      when 'beehiiv' then {{ json_text('segments.remote_data', ['total_results']) }}
      when 'flodesk' then {{ json_text('segments.remote_data', ['total_active_subscribers']) }}
      when 'mailerlite' then {{ json_text('segments.remote_data', ['total']) }}
    end
    {%- else -%}
    cast(null as varchar)
    {%- endif %} as members
  from segments
  -- Leave out accounts that were deleted in Truto: nobody can tell whether their segments still exist.
  inner join {{ ref('stg_truto__accounts') }} as accounts
    on segments.integrated_account_id = accounts.integrated_account_id
  left join workspaces
    on segments.integrated_account_id = workspaces.integrated_account_id
    and segments.workspace_id = workspaces.id
)

select
  concat(integrated_account_id, '/', id) as segment_key,
  integrated_account_id,
  id as segment_id,
  name,
  customer,
  tool,
  tool_label,
  workspace_id,
  workspace,
  case when members ~ '^[0-9]+$' then cast(members as bigint) end as members,
  description,
  status,
  is_starred,
  created_at,
  updated_at,
  last_calculated_at,
  _ab_cdc_updated_at as read_at
from counted
