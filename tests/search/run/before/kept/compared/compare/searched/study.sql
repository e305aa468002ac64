BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'searched');
INSERT INTO "studies" VALUES(2,'searched (retrained)');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',1,1);
INSERT INTO "study_directions" VALUES(3,'MAXIMIZE',2,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'secateur','{"format": "3", "weights": "df072b7b1e33e339", "graph": "4f7fd83f1a3a", "data": "bd658701cee08a22", "budget": "{\"macs\": [\"45%..60%\"]}", "space": "{\"criterion\": \"l2\", \"features\": \"fan_in\", \"kind\": \"hybrid\", \"limits\": {\"divisor\": 1, \"max_rate\": 0.9, \"min_channels\": 1}, \"linkage\": \"average\", \"reduction\": \"sum\", \"removal\": null}", "scorer": "region_kernel, 32 images", "sampler": "tpe", "seed": "0"}');
INSERT INTO "study_user_attributes" VALUES(2,1,'versions','{"torch": "2.13.0+cpu", "optuna": "5.0.0", "numpy": "2.4.6", "scipy": "1.17.1", "scikit-learn": "1.9.1"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'outline','{"id": "4f7fd83f1a3a", "groups": [["stem.0", 8], ["block.0", 12], ["wide.0", 16]], "dense": {"macs": 188976, "params": 3119, "latency": null, "memory": null}, "scorer": "region_kernel", "caps": [113385]}');
INSERT INTO "study_user_attributes" VALUES(4,1,'worker alone','{}');
INSERT INTO "study_user_attributes" VALUES(5,2,'worker 0','{}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'macs aimed at',5.8056131484504547302e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(2,1,'balance',7.15868294193068410713e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(3,1,'rate',8.39069920378985312225e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(4,2,'macs aimed at',5.02259640360819270554e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(5,2,'balance',7.33341943517562211418e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(6,2,'rate',7.28063363162948395945e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(7,3,'macs aimed at',4.57177229192248180122e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(8,3,'balance',9.1530417466260238779e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(9,3,'rate',8.85476091883954929961e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.45, "high": 0.9, "log": false}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'structure','"553531574d76"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'kept','"3edfdfff90"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'macs','100842');
INSERT INTO "trial_user_attributes" VALUES(4,1,'params','1712');
INSERT INTO "trial_user_attributes" VALUES(5,1,'effective','{"t_norm": 0.9369537821873015, "t_dist": 0.8807131320399675}');
INSERT INTO "trial_user_attributes" VALUES(6,1,'strength','0.18181818181818182');
INSERT INTO "trial_user_attributes" VALUES(7,1,'seconds','0.03433196399998906');
INSERT INTO "trial_user_attributes" VALUES(8,2,'structure','"e3f881663316"');
INSERT INTO "trial_user_attributes" VALUES(9,2,'kept','"3edfdff680"');
INSERT INTO "trial_user_attributes" VALUES(10,2,'macs','92193');
INSERT INTO "trial_user_attributes" VALUES(11,2,'params','1559');
INSERT INTO "trial_user_attributes" VALUES(12,2,'effective','{"t_norm": 0.9374899191611257, "t_dist": 0.9055261184321469}');
INSERT INTO "trial_user_attributes" VALUES(13,2,'strength','0.28787878787878785');
INSERT INTO "trial_user_attributes" VALUES(14,2,'seconds','0.011291387000028408');
INSERT INTO "trial_user_attributes" VALUES(15,3,'structure','"aa4e7f83c58b"');
INSERT INTO "trial_user_attributes" VALUES(16,3,'kept','"3affdffeb0"');
INSERT INTO "trial_user_attributes" VALUES(17,3,'macs','85290');
INSERT INTO "trial_user_attributes" VALUES(18,3,'params','1468');
INSERT INTO "trial_user_attributes" VALUES(19,3,'effective','{"t_norm": 0.9227288076345838, "t_dist": 0.9354261540492104}');
INSERT INTO "trial_user_attributes" VALUES(20,3,'strength','0.3787878787878788');
INSERT INTO "trial_user_attributes" VALUES(21,3,'seconds','0.021127987999875586');
INSERT INTO "trial_user_attributes" VALUES(22,4,'structure','"e3f881663316"');
INSERT INTO "trial_user_attributes" VALUES(23,4,'trial','1');
INSERT INTO "trial_user_attributes" VALUES(24,4,'recipe','"{\"augment\": null, \"batch_size\": 32, \"channels_last\": true, \"clip\": 0.0, \"distill\": 0.9, \"ema\": 0.0, \"epochs\": 1, \"flow\": \"one-shot\", \"label_smoothing\": 0.0, \"lr\": 0.1, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"precision\": \"auto\", \"recalibrate\": 20, \"schedule\": \"cosine\", \"seed\": 0, \"slim\": 0.0, \"slim_layers\": {}, \"steps\": 1, \"temperature\": 2.0, \"warmup\": null, \"weight_decay\": 0.0005}"');
INSERT INTO "trial_user_attributes" VALUES(25,4,'claim','"fe039cf14703/886186806724"');
INSERT INTO "trial_user_attributes" VALUES(26,4,'accuracy','0.8888888888888888');
INSERT INTO "trial_user_attributes" VALUES(27,4,'test_accuracy','0.7666666666666667');
INSERT INTO "trial_user_attributes" VALUES(28,4,'recalibrated_accuracy','0.5555555555555556');
INSERT INTO "trial_user_attributes" VALUES(29,4,'seconds','0.06317602400008582');
INSERT INTO "trial_user_attributes" VALUES(30,4,'wall_seconds','0.14407822900000156');
INSERT INTO "trial_user_attributes" VALUES(31,4,'artefact','"@HERE@/runs/compared/compare/searched/retrain/e3f881663316-b83bd4/network.safetensors"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,9.88540310868296856483e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,100842.0,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,9.90250119328411337882e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,1,92193.0,'FINITE');
INSERT INTO "trial_values" VALUES(5,3,0,9.90153527766301388979e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,3,1,85290.0,'FINITE');
INSERT INTO "trial_values" VALUES(7,4,0,8.88888888888888839545e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-26 06:56:30.578340','2026-11-26 06:56:30.632025');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-26 06:56:30.683944','2026-11-26 06:56:30.694880');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-26 06:56:30.735718','2026-11-26 06:56:30.752382');
INSERT INTO "trials" VALUES(4,0,2,'COMPLETE','2026-11-26 06:56:30.945809','2026-11-26 06:56:31.201498');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
