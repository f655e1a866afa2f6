with segments as (
  {{ current_rows(source('truto', 'segments'), 'integrated_account_id, id') }}
),

workspaces as (
  {{ current_rows(source('truto', 'workspaces'), 'integrated_account_id, id') }}
),

counted as (
  select
    segments.*,
    accounts.customer,
    accounts.tool,
    accounts.tool_label,
    workspaces.name as workspace,
    case accounts.tool
      when 'activecampaign' then {{ json_text(
        'segments.remote_data', ['attributes', 'counts', 'last_total', 'count']) }}
      when 'beehiiv' then {{ json_text('segments.remote_data', ['total_results']) }}
      when 'flodesk' then {{ json_text('segments.remote_data', ['total_active_subscribers']) }}
      when 'mailerlite' then {{ json_text('segments.remote_data', ['total']) }}
    end as members
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
