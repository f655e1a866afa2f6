{#- Select the newest row of each key unless it is a deletion, in a deduplicated or an appended table. -#}
{% macro current_rows(table, key) -%}
  select * from (
    select *, row_number() over (
      partition by {{ key }} order by _ab_cdc_updated_at desc, _airbyte_extracted_at desc
    ) as _newest_is_1
    from {{ table }}
  ) as versions
  where _newest_is_1 = 1 and _ab_cdc_deleted_at is null
{%- endmacro %}
