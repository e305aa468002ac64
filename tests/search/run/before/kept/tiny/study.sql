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
INSERT INTO "studies" VALUES(1,'tiny');
INSERT INTO "studies" VALUES(2,'tiny (retrained)');
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
INSERT INTO "study_user_attributes" VALUES(1,1,'secateur','{"format": "3", "weights": "78ee948b7d390c96", "graph": "4f7fd83f1a3a", "data": "bd658701cee08a22", "budget": "{\"macs\": [\"30%..60%\"]}", "space": "{\"criterion\": \"l2\", \"features\": \"fan_in\", \"kind\": \"hybrid+ratios\", \"limits\": {\"divisor\": 1, \"max_rate\": 0.9, \"min_channels\": 1}, \"linkage\": \"average\", \"reduction\": \"sum\", \"removal\": {\"layers\": [], \"measure\": \"cosine\", \"most\": 1.0}}", "scorer": "region_kernel, 32 images", "sampler": "tpe", "seed": "0"}');
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
INSERT INTO "trial_params" VALUES(1,1,'macs aimed at',5.61122629690091079268e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(2,1,'balance',7.15868294193068410713e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(3,1,'cap stem.0',7.78139840757970713269e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(4,1,'cap block.0',5.89974875507874529922e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(5,1,'cap wide.0',3.63818391962189291444e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(6,1,'layers removed',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(7,2,'macs aimed at',4.04519280721638563314e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(8,2,'balance',7.33341943517562211418e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(9,2,'cap stem.0',5.56126726325896769687e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(10,2,'cap block.0',7.69763234682236063832e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(11,2,'cap wide.0',0.31497343676945,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(12,2,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(13,3,'macs aimed at',3.14354458384496271428e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(14,3,'balance',9.1530417466260238779e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(15,3,'cap stem.0',8.70952183767909837719e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(16,3,'cap block.0',5.69950872102146344211e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(17,3,'cap wide.0',6.86515423729946311359e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(18,3,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(19,4,'macs aimed at',5.80213529440588349217e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(20,4,'balance',9.23231797493920813835e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(21,4,'cap stem.0',3.06925005475416345923e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(22,4,'cap block.0',5.5568159777896941609e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(23,4,'cap wide.0',5.62296097101314229504e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(24,4,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(25,5,'macs aimed at',4.4126483565125063091e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(26,5,'balance',1.07438541987445734804e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(27,5,'cap stem.0',6.89464197987864624295e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(28,5,'cap block.0',1.16820648796283121928e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(29,5,'cap wide.0',4.89137828965379273249e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(30,5,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(31,6,'macs aimed at',4.43769400039948580527e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(32,6,'balance',0.488091232470399,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(33,6,'cap stem.0',7.39569897370432327576e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(34,6,'cap block.0',9.70100948393803896863e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(35,6,'cap wide.0',0.297521640529554,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(36,6,'layers removed',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(37,7,'macs aimed at',3.8006034749254791194e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(38,7,'balance',1.28986652557164793719e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(39,7,'cap stem.0',2.68615231775031548799e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(40,7,'cap block.0',4.12945715411793090598e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(41,7,'cap wide.0',7.29094357182154317875e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(42,7,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
INSERT INTO "trial_params" VALUES(43,8,'macs aimed at',3.71126418644164290938e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.3, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(44,8,'balance',8.7430541602664157974e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
INSERT INTO "trial_params" VALUES(45,8,'cap stem.0',4.59566337305066185958e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(46,8,'cap block.0',8.00480987810272326399e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(47,8,'cap wide.0',5.65920586579843232222e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 0.9, "log": false}}');
INSERT INTO "trial_params" VALUES(48,8,'layers removed',0.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 1}}');
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
INSERT INTO "trial_user_attributes" VALUES(1,1,'structure','"8a46f21a7cfc"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'kept','"fffffffff0"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'removed','["block"]');
INSERT INTO "trial_user_attributes" VALUES(4,1,'macs','78384');
INSERT INTO "trial_user_attributes" VALUES(5,1,'params','1347');
INSERT INTO "trial_user_attributes" VALUES(6,1,'effective','{"t_norm": 0.0, "t_dist": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(7,1,'strength','0.0');
INSERT INTO "trial_user_attributes" VALUES(8,1,'seconds','0.03888481500007401');
INSERT INTO "trial_user_attributes" VALUES(9,2,'structure','"57798cce057f"');
INSERT INTO "trial_user_attributes" VALUES(10,2,'kept','"3e9d5bf6a0"');
INSERT INTO "trial_user_attributes" VALUES(11,2,'macs','74913');
INSERT INTO "trial_user_attributes" VALUES(12,2,'params','1280');
INSERT INTO "trial_user_attributes" VALUES(13,2,'effective','{"t_norm": 0.9467662613625533, "t_dist": 0.9446863711383137}');
INSERT INTO "trial_user_attributes" VALUES(14,2,'strength','0.4696969696969697');
INSERT INTO "trial_user_attributes" VALUES(15,2,'seconds','0.03020005799999126');
INSERT INTO "trial_user_attributes" VALUES(16,3,'structure','"babf44e4c7c6"');
INSERT INTO "trial_user_attributes" VALUES(17,3,'kept','"329fdffef0"');
INSERT INTO "trial_user_attributes" VALUES(18,3,'macs','58797');
INSERT INTO "trial_user_attributes" VALUES(19,3,'params','1050');
INSERT INTO "trial_user_attributes" VALUES(20,3,'effective','{"t_norm": 0.9270314918352035, "t_dist": 0.9497516058982481}');
INSERT INTO "trial_user_attributes" VALUES(21,3,'strength','0.5177124767033178');
INSERT INTO "trial_user_attributes" VALUES(22,3,'seconds','0.029243250999911652');
INSERT INTO "trial_user_attributes" VALUES(23,4,'structure','"e410be685a98"');
INSERT INTO "trial_user_attributes" VALUES(24,4,'kept','"3f9fdfde90"');
INSERT INTO "trial_user_attributes" VALUES(25,4,'macs','107172');
INSERT INTO "trial_user_attributes" VALUES(26,4,'params','1800');
INSERT INTO "trial_user_attributes" VALUES(27,4,'effective','{"t_norm": 0.9578403431618426, "t_dist": 0.8465159033360952}');
INSERT INTO "trial_user_attributes" VALUES(28,4,'strength','0.2916666666666667');
INSERT INTO "trial_user_attributes" VALUES(29,4,'seconds','0.02435681100007514');
INSERT INTO "trial_user_attributes" VALUES(30,5,'structure','"e6fd42932d32"');
INSERT INTO "trial_user_attributes" VALUES(31,5,'kept','"3affdfde90"');
INSERT INTO "trial_user_attributes" VALUES(32,5,'macs','80676');
INSERT INTO "trial_user_attributes" VALUES(33,5,'params','1384');
INSERT INTO "trial_user_attributes" VALUES(34,5,'effective','{"t_norm": 0.9601098867037029, "t_dist": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(35,5,'strength','0.3194444444444444');
INSERT INTO "trial_user_attributes" VALUES(36,5,'seconds','0.024148001999947155');
INSERT INTO "trial_user_attributes" VALUES(37,6,'structure','"8a46f21a7cfc"');
INSERT INTO "trial_user_attributes" VALUES(38,6,'kept','"fffffffff0"');
INSERT INTO "trial_user_attributes" VALUES(39,6,'removed','["block"]');
INSERT INTO "trial_user_attributes" VALUES(40,6,'macs','78384');
INSERT INTO "trial_user_attributes" VALUES(41,6,'params','1347');
INSERT INTO "trial_user_attributes" VALUES(42,6,'effective','{"t_norm": 0.0, "t_dist": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(43,6,'strength','0.0');
INSERT INTO "trial_user_attributes" VALUES(44,6,'seconds','0.001967003000004297');
INSERT INTO "trial_user_attributes" VALUES(45,7,'structure','"b621edb6ea11"');
INSERT INTO "trial_user_attributes" VALUES(46,7,'kept','"3e9d59c680"');
INSERT INTO "trial_user_attributes" VALUES(47,7,'macs','63381');
INSERT INTO "trial_user_attributes" VALUES(48,7,'params','1076');
INSERT INTO "trial_user_attributes" VALUES(49,7,'effective','{"t_norm": 1.0061016897605295, "t_dist": 0.8643236144584334}');
INSERT INTO "trial_user_attributes" VALUES(50,7,'strength','0.5868076653148981');
INSERT INTO "trial_user_attributes" VALUES(51,7,'seconds','0.010272921999899154');
INSERT INTO "trial_user_attributes" VALUES(52,8,'structure','"24ddef7c1117"');
INSERT INTO "trial_user_attributes" VALUES(53,8,'kept','"3e9d5bd680"');
INSERT INTO "trial_user_attributes" VALUES(54,8,'macs','69147');
INSERT INTO "trial_user_attributes" VALUES(55,8,'params','1178');
INSERT INTO "trial_user_attributes" VALUES(56,8,'effective','{"t_norm": 0.9332333029591796, "t_dist": 0.9446863711383137}');
INSERT INTO "trial_user_attributes" VALUES(57,8,'strength','0.4696969696969697');
INSERT INTO "trial_user_attributes" VALUES(58,8,'seconds','0.01843796600007863');
INSERT INTO "trial_user_attributes" VALUES(59,9,'structure','"e410be685a98"');
INSERT INTO "trial_user_attributes" VALUES(60,9,'trial','3');
INSERT INTO "trial_user_attributes" VALUES(61,9,'recipe','"{\"augment\": null, \"batch_size\": 32, \"channels_last\": true, \"clip\": 0.0, \"distill\": 0.9, \"ema\": 0.0, \"epochs\": 2, \"flow\": \"one-shot\", \"label_smoothing\": 0.0, \"lr\": 0.1, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"precision\": \"auto\", \"recalibrate\": 20, \"schedule\": \"cosine\", \"seed\": 0, \"slim\": 0.0, \"slim_layers\": {}, \"steps\": 1, \"temperature\": 2.0, \"warmup\": null, \"weight_decay\": 0.0005}"');
INSERT INTO "trial_user_attributes" VALUES(62,9,'claim','"22aedc72b7f4/836074126045"');
INSERT INTO "trial_user_attributes" VALUES(63,9,'accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(64,9,'test_accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(65,9,'recalibrated_accuracy','1.0');
INSERT INTO "trial_user_attributes" VALUES(66,9,'seconds','0.14976449900007083');
INSERT INTO "trial_user_attributes" VALUES(67,9,'wall_seconds','0.30826327800002673');
INSERT INTO "trial_user_attributes" VALUES(68,9,'artefact','"@HERE@/runs/tiny/retrain/e410be685a98-3bf938/network.safetensors"');
INSERT INTO "trial_user_attributes" VALUES(69,10,'structure','"babf44e4c7c6"');
INSERT INTO "trial_user_attributes" VALUES(70,10,'trial','2');
INSERT INTO "trial_user_attributes" VALUES(71,10,'recipe','"{\"augment\": null, \"batch_size\": 32, \"channels_last\": true, \"clip\": 0.0, \"distill\": 0.9, \"ema\": 0.0, \"epochs\": 2, \"flow\": \"one-shot\", \"label_smoothing\": 0.0, \"lr\": 0.1, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"precision\": \"auto\", \"recalibrate\": 20, \"schedule\": \"cosine\", \"seed\": 0, \"slim\": 0.0, \"slim_layers\": {}, \"steps\": 1, \"temperature\": 2.0, \"warmup\": null, \"weight_decay\": 0.0005}"');
INSERT INTO "trial_user_attributes" VALUES(72,10,'claim','"22aedc72b7f4/836561579648"');
INSERT INTO "trial_user_attributes" VALUES(73,10,'accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(74,10,'test_accuracy','0.6666666666666666');
INSERT INTO "trial_user_attributes" VALUES(75,10,'recalibrated_accuracy','0.9444444444444444');
INSERT INTO "trial_user_attributes" VALUES(76,10,'seconds','0.13033780900002512');
INSERT INTO "trial_user_attributes" VALUES(77,10,'wall_seconds','0.21748780999996598');
INSERT INTO "trial_user_attributes" VALUES(78,10,'artefact','"@HERE@/runs/tiny/retrain/babf44e4c7c6-3bf938/network.safetensors"');
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
INSERT INTO "trial_values" VALUES(1,1,0,9.60532503696631234646e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,78384.0,'FINITE');
INSERT INTO "trial_values" VALUES(3,2,0,9.89371039449267741794e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,1,74913.0,'FINITE');
INSERT INTO "trial_values" VALUES(5,3,0,0.969663759691368,'FINITE');
INSERT INTO "trial_values" VALUES(6,3,1,58797.0,'FINITE');
INSERT INTO "trial_values" VALUES(7,4,0,9.93674904731925878742e-01,'FINITE');
INSERT INTO "trial_values" VALUES(8,4,1,107172.0,'FINITE');
INSERT INTO "trial_values" VALUES(9,5,0,9.86164586175532820178e-01,'FINITE');
INSERT INTO "trial_values" VALUES(10,5,1,80676.0,'FINITE');
INSERT INTO "trial_values" VALUES(11,6,0,9.60532503696631234646e-01,'FINITE');
INSERT INTO "trial_values" VALUES(12,6,1,78384.0,'FINITE');
INSERT INTO "trial_values" VALUES(13,7,0,9.88676265734542147889e-01,'FINITE');
INSERT INTO "trial_values" VALUES(14,7,1,63381.0,'FINITE');
INSERT INTO "trial_values" VALUES(15,8,0,9.85680184105345635892e-01,'FINITE');
INSERT INTO "trial_values" VALUES(16,8,1,69147.0,'FINITE');
INSERT INTO "trial_values" VALUES(17,9,0,6.66666666666666629659e-01,'FINITE');
INSERT INTO "trial_values" VALUES(18,10,0,6.66666666666666629659e-01,'FINITE');
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
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-26 06:55:40.057907','2026-11-26 06:55:40.105990');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-26 06:55:40.174096','2026-11-26 06:55:40.203984');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-26 06:55:40.257561','2026-11-26 06:55:40.286585');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-26 06:55:40.349818','2026-11-26 06:55:40.373882');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-26 06:55:40.418844','2026-11-26 06:55:40.442712');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-26 06:55:40.500048','2026-11-26 06:55:40.501568');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-26 06:55:40.544231','2026-11-26 06:55:40.554207');
INSERT INTO "trials" VALUES(8,7,1,'COMPLETE','2026-11-26 06:55:40.586637','2026-11-26 06:55:40.601700');
INSERT INTO "trials" VALUES(9,0,2,'COMPLETE','2026-11-26 06:55:40.833134','2026-11-26 06:55:41.294709');
INSERT INTO "trials" VALUES(10,1,2,'COMPLETE','2026-11-26 06:55:41.311028','2026-11-26 06:55:41.600402');
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
